//! Window functions that count: the engine's answer numbers without a sign, of which a difference wraps around.

use super::super::bounds::signed;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::{SortOptions, cast};
use datafusion::arrow::datatypes::FieldRef;
use datafusion::error::Result as DfResult;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Expr, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const COUNTING: [&str; 4] = ["row_number", "rank", "dense_rank", "ntile"];

static ROW_NUMBER: LazyLock<Arc<WindowUDF>> = LazyLock::new(|| counting(&row_number_udwf()));

/// The number of a row in its window.
pub fn row_number() -> Expr {
    ROW_NUMBER.call(Vec::new())
}

/// A function of the engine, with a sign if it counts.
pub fn counting(function: &Arc<WindowUDF>) -> Arc<WindowUDF> {
    match COUNTING.contains(&function.name()) {
        true => Arc::new(Counting(function.clone()).into()),
        false => function.clone(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counting(Arc<WindowUDF>);

impl WindowUDFImpl for Counting {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.0.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> DfResult<Box<dyn PartitionEvaluator>> {
        self.0.partition_evaluator_factory(args).map(|evaluator| Box::new(Counter(evaluator)) as _)
    }

    fn field(&self, args: WindowUDFFieldArgs) -> DfResult<FieldRef> {
        let field = self.0.field(args)?;
        let ty = signed(field.data_type());
        Ok(Arc::new(field.as_ref().clone().with_data_type(ty)))
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.0.sort_options()
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        self.0.reverse_expr()
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.0.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct Counter(Box<dyn PartitionEvaluator>);

fn with_sign(counts: &ArrayRef) -> DfResult<ArrayRef> {
    Ok(cast(counts, &signed(counts.data_type()))?)
}

impl PartitionEvaluator for Counter {
    fn memoize(&mut self, state: &mut WindowAggState) -> DfResult<()> {
        self.0.memoize(state)
    }

    fn get_range(&self, at: usize, rows: usize) -> DfResult<Range<usize>> {
        self.0.get_range(at, rows)
    }

    fn is_causal(&self) -> bool {
        self.0.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> DfResult<ArrayRef> {
        with_sign(&self.0.evaluate_all(values, rows)?)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> DfResult<ScalarValue> {
        let count = self.0.evaluate(values, range)?;
        count.cast_to(&signed(&count.data_type()))
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> DfResult<ArrayRef> {
        with_sign(&self.0.evaluate_all_with_rank(rows, ranks)?)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.0.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.0.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.0.include_rank()
    }
}
