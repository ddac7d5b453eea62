//! Aggregates that make lists, over windows. A running list is made anew for each row, so a column of them grows with the
//! square of the rows: what it takes is counted before it is made.

use crate::engine::bounds::size_of_scalar;
use crate::engine::counted;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

const NAMES: [(&str, &str); 2] = [("array_agg", "array_agg_over"), ("string_agg", "string_agg_over")];

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let make = |name, inner| Arc::new(AggregateUDF::from(Windowed { name, inner }));
    vec![make(NAMES[0].1, array_agg_udaf()), make(NAMES[1].1, string_agg_udaf())]
}

/// The name here of a function that is called with OVER, if it has another.
pub fn name_over(function: &str) -> Option<&'static str> {
    NAMES.iter().find(|(name, _)| *name == function).map(|(_, over)| *over)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Windowed {
    name: &'static str,
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Windowed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> DfResult<FieldRef> {
        self.inner.return_field(fields)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Counting { list: self.inner.accumulator(args)?, rows: 0 }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Counting { list: self.inner.create_sliding_accumulator(args)?, rows: 0 }))
    }
}

#[derive(Debug)]
struct Counting {
    list: Box<dyn Accumulator>,
    /// That have come since the last list was made: each of them shows the next one.
    rows: usize,
}

impl Accumulator for Counting {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.rows += values.first().map_or(0, |column| column.len());
        self.list.update_batch(values)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let list = self.list.evaluate()?;
        if let Some(made) = counted::made() {
            let bytes = size_of_scalar(&list)?.total();
            made.keep(bytes.saturating_mul(self.rows.max(1)))?;
        }
        self.rows = 0;
        Ok(list)
    }

    fn size(&self) -> usize {
        self.list.size()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.list.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.list.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.list.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.list.supports_retract_batch()
    }
}
