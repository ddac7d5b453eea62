//! `generate_series(first, last [, step])` in FROM: numbers that are made as they are read, at the router.

use super::errors::wrap;
use async_trait::async_trait;
use datafusion::arrow::array::Int64Array;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{ColumnarValue, Expr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::iter;
use model::{Code, Error};
use std::sync::Arc;

pub const NAME: &str = "generate_series";

/// From a number to another, both included, if the steps meet it.
#[derive(Clone, Debug)]
pub struct Series {
    schema: SchemaRef,
    /// None for a series without numbers.
    range: Option<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    first: i64,
    last: i64,
    step: i64,
}

impl Series {
    /// Of a call's arguments, which are constants.
    ///
    /// Errors: `WrongType`, `Argument` for a step of 0.
    pub fn called(state: &SessionState, args: &[Expr]) -> DfResult<Self> {
        let numbers = args.iter().map(|arg| number(state, arg)).collect::<DfResult<Vec<_>>>()?;
        let range = match numbers[..] {
            [first, last] => range(first, last, Some(1))?,
            [first, last, step] => range(first, last, step)?,
            _ => return Err(wrong()),
        };
        Ok(Self { schema: Arc::new(Schema::new(vec![Field::new(NAME, DataType::Int64, false)])), range })
    }
}

fn wrong() -> datafusion::error::DataFusionError {
    let message = format!("{NAME} takes two or three whole numbers that are the same for all rows");
    wrap(Error::new(Code::WrongType, message).with_hint("write generate_series(first, last, step) in FROM"))
}

/// The value of a constant; None for NULL.
fn number(state: &SessionState, arg: &Expr) -> DfResult<Option<i64>> {
    if arg.any_column_refs() || arg.contains_outer() {
        return Err(wrong());
    }
    let row = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let value = match state.create_physical_expr(arg.clone(), &DFSchema::empty())?.evaluate(&row)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
    };
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) if value.data_type().is_integer() || value.is_null() => Ok(number),
        _ => Err(wrong()),
    }
}

fn range(first: Option<i64>, last: Option<i64>, step: Option<i64>) -> DfResult<Option<Range>> {
    let (Some(first), Some(last), Some(step)) = (first, last, step) else { return Ok(None) };
    if step == 0 {
        return Err(wrap(Error::new(Code::Argument, format!("{NAME} takes no step of 0"))));
    }
    Ok(Some(Range { first, last, step }).filter(|range| range.is_inside(first)))
}

impl Range {
    fn is_inside(&self, number: i64) -> bool {
        if self.step > 0 { number <= self.last } else { number >= self.last }
    }
}

impl Iterator for Cursor {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let number = self.next?;
        self.next = number.checked_add(self.range.step).filter(|next| self.range.is_inside(*next));
        Some(number)
    }
}

/// A series that is read.
struct Cursor {
    range: Range,
    next: Option<i64>,
}

#[async_trait]
impl TableProvider for Series {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let numbers = Arc::new(self.clone()) as Arc<dyn PartitionStream>;
        let scan =
            StreamingTableExec::try_new(self.schema.clone(), vec![numbers], projection, Vec::new(), false, limit)?;
        Ok(Arc::new(scan))
    }
}

impl PartitionStream for Series {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, rows) = (self.schema.clone(), context.session_config().batch_size());
        let mut numbers = self.range.into_iter().flat_map(|range| Cursor { range, next: Some(range.first) });
        let batches = std::iter::from_fn(move || {
            let batch = Int64Array::from_iter_values(numbers.by_ref().take(rows));
            let is_over = batch.is_empty();
            (!is_over).then(|| Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(batch)])?))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), iter(batches)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(first: i64, last: i64, step: i64) -> Vec<i64> {
        let range = range(Some(first), Some(last), Some(step)).unwrap();
        range.into_iter().flat_map(|range| Cursor { range, next: Some(range.first) }).collect()
    }

    #[test]
    fn a_series_ends_where_it_should() {
        assert_eq!(numbers(1, 3, 1), [1, 2, 3]);
        assert_eq!(numbers(1, 6, 2), [1, 3, 5]);
        assert_eq!(numbers(3, 1, -1), [3, 2, 1]);
        assert!(numbers(3, 1, 1).is_empty());
        assert_eq!(numbers(1, 1, -5), [1]);
        assert_eq!(numbers(i64::MAX - 1, i64::MAX, 1), [i64::MAX - 1, i64::MAX]);
        assert_eq!(numbers(i64::MIN + 1, i64::MIN, -1), [i64::MIN + 1, i64::MIN]);
        assert_eq!(numbers(0, i64::MAX, i64::MAX), [0, i64::MAX]);
    }
}
