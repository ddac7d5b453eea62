//! Long values that functions make count in the memory of their query, for as long as anybody has them. Operators count the rows
//! they keep; what the expressions of a batch make on the way, in many columns side by side or in calls within calls, nobody
//! else does.
//!
//! A function does not know its query. So whoever asks a plan for rows says whose memory it is, for as long as that step takes
//! on its thread, and tasks that a plan starts meanwhile belong to the same query.

use super::bounds::{is_long, size_of, size_of_scalar, within_bounds};
use datafusion::arrow::array::{Array, ArrayData, ArrayRef, AsArray, StringViewArray, UInt32Array, make_array};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::poll_fn;
use futures::{FutureExt, StreamExt};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

/// Results of so many bytes do not matter, also in each column of a query.
const SHORT_BYTES: usize = 256 << 10;

type Pool = Arc<dyn MemoryPool>;

thread_local! {
    /// Of the query that runs on this thread just now.
    static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

/// Does a step of a query: what is made meanwhile is its own.
fn within<T>(pool: &Pool, step: impl FnOnce() -> T) -> T {
    struct Outer(Option<Pool>);
    impl Drop for Outer {
        fn drop(&mut self) {
            POOL.set(self.0.take());
        }
    }
    let _outer = Outer(POOL.replace(Some(pool.clone())));
    step()
}

fn current_pool() -> Option<Pool> {
    POOL.with_borrow(Clone::clone)
}

/// The rows of a plan, made within the memory of its query.
pub fn rows_of(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
    let pool = context.memory_pool().clone();
    let mut rows = within(&pool, || execute_stream(plan, context))?;
    let schema = rows.schema();
    let stream = poll_fn(move |context| within(&pool, || rows.poll_next_unpin(context)));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

/// Lets the tasks that a plan starts belong to its query. Once a process.
pub fn follow_tasks() {
    // Another engine of this process has done it, if it fails.
    let _ = set_join_set_tracer(&OfSpawner);
}

struct OfSpawner;

impl JoinSetTracer for OfSpawner {
    fn trace_future(
        &self,
        mut task: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        let Some(pool) = current_pool() else { return task };
        std::future::poll_fn(move |context| within(&pool, || task.poll_unpin(context))).boxed()
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        let Some(pool) = current_pool() else { return block };
        Box::new(move || within(&pool, block))
    }
}

/// Calls a function, so that its long results count. A long text that is the same for all rows counts once, so it becomes a
/// column of rows that share it; `call` gets it as one row.
pub fn called(
    args: ScalarFunctionArgs,
    call: impl FnOnce(ScalarFunctionArgs) -> DfResult<ColumnarValue>,
) -> DfResult<ColumnarValue> {
    let Some(pool) = current_pool() else { return call(args) };
    let rows = args.number_rows;
    let makes_long = is_long(args.return_field.data_type());
    if !is_same_for_all(&args) {
        if !makes_long {
            return call(args);
        }
        let counting = Counting { pool, given: lent(&args)? };
        return counting.result(call(args)?, rows);
    }
    let one = |arg: ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(0, 1)),
        scalar => scalar,
    };
    let args = ScalarFunctionArgs { args: args.args.into_iter().map(one).collect(), number_rows: 1, ..args };
    let counting = Counting { pool, given: lent(&args)? };
    counting.same_for_all(call(args)?.into_array(1)?, rows)
}

/// Whether no argument differs between the rows, and one of them is a long text.
fn is_same_for_all(args: &ScalarFunctionArgs) -> bool {
    args.number_rows > 1
        && args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)))
        && args.args.iter().all(|arg| match arg {
            ColumnarValue::Array(array) => array.as_string_view_opt().is_some_and(is_one_long_text),
            ColumnarValue::Scalar(_) => true,
        })
}

fn is_one_long_text(texts: &StringViewArray) -> bool {
    let views = texts.views();
    // The length of a text is in the low half of its view.
    let is_long = views.first().is_some_and(|view| (*view as u32) as usize > SHORT_BYTES);
    is_long && texts.null_count() == 0 && views.iter().all(|view| *view == views[0])
}

/// Memory that arguments share with results, if these are parts of them.
fn lent(args: &ScalarFunctionArgs) -> DfResult<HashSet<usize>> {
    let mut found = HashSet::new();
    for arg in &args.args {
        match arg {
            ColumnarValue::Array(array) if is_long(array.data_type()) => buffers_of(&array.to_data(), &mut found),
            ColumnarValue::Scalar(value) if value.data_type().is_nested() => {
                buffers_of(&value.to_array()?.to_data(), &mut found)
            }
            _ => {}
        }
    }
    Ok(found)
}

fn buffers_of(data: &ArrayData, found: &mut HashSet<usize>) {
    found.extend(data.buffers().iter().map(address));
    data.child_data().iter().for_each(|child| buffers_of(child, found));
}

fn address(buffer: &Buffer) -> usize {
    buffer.data_ptr().addr().get()
}

/// Memory with the note that it counts.
struct Noted {
    bytes: Buffer,
    _counted: MemoryReservation,
}

impl AsRef<[u8]> for Noted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Counting {
    pool: Pool,
    /// What does not count again.
    given: HashSet<usize>,
}

impl Counting {
    fn result(&self, result: ColumnarValue, rows: usize) -> DfResult<ColumnarValue> {
        match result {
            ColumnarValue::Array(array) => self.array(array).map(ColumnarValue::Array),
            ColumnarValue::Scalar(value) if size_of_scalar(&value)?.total() <= SHORT_BYTES => {
                Ok(ColumnarValue::Scalar(value))
            }
            ColumnarValue::Scalar(value) => self.same_for_all(value.to_array()?, rows),
        }
    }

    /// The value of one row, for all rows.
    fn same_for_all(&self, one: ArrayRef, rows: usize) -> DfResult<ColumnarValue> {
        let (bytes, ty) = (size_of(&one).total(), one.data_type().clone());
        if bytes <= SHORT_BYTES || ty.is_nested() {
            return ScalarValue::try_from_array(&self.array(one)?, 0).map(ColumnarValue::Scalar);
        }
        let first_for_each = UInt32Array::from_value(0, rows);
        if ty == DataType::Utf8View {
            return Ok(ColumnarValue::Array(take(&self.array(one)?, &first_for_each, None)?));
        }
        // Rows can not share these.
        within_bounds(bytes.saturating_mul(rows))?;
        self.array(take(&one, &first_for_each, None)?).map(ColumnarValue::Array)
    }

    fn array(&self, array: ArrayRef) -> DfResult<ArrayRef> {
        if size_of(&array).total() <= SHORT_BYTES {
            return Ok(array);
        }
        self.data(array.to_data()).map(make_array)
    }

    fn data(&self, data: ArrayData) -> DfResult<ArrayData> {
        let buffers = data.buffers().iter().map(|buffer| self.buffer(buffer)).collect::<DfResult<_>>()?;
        let children = data.child_data().iter().map(|child| self.data(child.clone())).collect::<DfResult<_>>()?;
        Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
    }

    fn buffer(&self, buffer: &Buffer) -> DfResult<Buffer> {
        if self.given.contains(&address(buffer)) {
            return Ok(buffer.clone());
        }
        let counted = MemoryConsumer::new("values of functions").register(&self.pool);
        counted.try_grow(buffer.capacity().max(buffer.len()))?;
        Ok(bytes::Bytes::from_owner(Noted { bytes: buffer.clone(), _counted: counted }).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::Field;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    const LONG: usize = 1 << 20;

    fn pool() -> Pool {
        Arc::new(GreedyMemoryPool::new(8 * LONG))
    }

    fn args(args: Vec<ColumnarValue>, number_rows: usize) -> ScalarFunctionArgs {
        let arg_fields = args.iter().map(|arg| Arc::new(Field::new("", arg.data_type(), true))).collect();
        let return_field = Arc::new(Field::new("", DataType::Utf8View, true));
        ScalarFunctionArgs { args, arg_fields, number_rows, return_field, config_options: Arc::default() }
    }

    fn text(bytes: usize) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8View(Some("x".repeat(bytes))))
    }

    fn make(bytes: usize, rows: usize) -> DfResult<ColumnarValue> {
        called(args(Vec::new(), rows), |_| Ok(text(bytes)))
    }

    #[test]
    fn a_long_value_counts_until_it_is_dropped() {
        let pool = pool();
        within(&pool, || {
            let made = make(LONG, 100).unwrap();
            assert!((LONG..2 * LONG).contains(&pool.reserved()));
            let part = made.to_array(100).unwrap().slice(7, 1);
            drop(made);
            assert_eq!(part.as_string_view().value(0).len(), LONG);
            assert!(pool.reserved() >= LONG);
            drop(part);
            assert_eq!(pool.reserved(), 0);
            let kept: Vec<_> = (0..100).map_while(|_| make(LONG, 1).ok()).collect();
            assert!((6..=8).contains(&kept.len()), "{}", kept.len());
            assert!(make(100, 1).is_ok());
        });
        assert_eq!(pool.reserved(), 0);
        assert!(make(LONG, 1).is_ok());
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn what_a_function_passes_on_counts_once() {
        let pool = pool();
        within(&pool, || {
            let made = make(LONG, 3).unwrap();
            let counted = pool.reserved();
            let passed = called(args(vec![made.clone()], 3), |args| Ok(args.args[0].clone())).unwrap();
            assert_eq!(passed.to_array(3).unwrap().len(), 3);
            assert!(matches!(passed, ColumnarValue::Array(_)));
            assert!(pool.reserved() <= 2 * counted);
            let columns =
                vec![made.clone(), ColumnarValue::Array(Arc::new(StringViewArray::from(vec!["a", "b", "c"])))];
            let before = pool.reserved();
            let passed = called(args(columns, 3), |args| Ok(args.args[0].clone())).unwrap();
            assert_eq!(passed.to_array(3).unwrap().len(), 3);
            assert_eq!(pool.reserved(), before);
        });
    }

    #[test]
    fn a_function_of_what_all_rows_share_is_called_for_one() {
        within(&pool(), || {
            let made = make(LONG, 8192).unwrap();
            let mut lengths = args(vec![made, text(1)], 8192);
            lengths.return_field = Arc::new(Field::new("", DataType::Int64, true));
            let length = called(lengths, |args| {
                assert_eq!(args.number_rows, 1);
                let length = args.args[0].to_array(1)?.as_string_view().value(0).len();
                Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(length as i64))))
            });
            assert!(matches!(length.unwrap(), ColumnarValue::Scalar(ScalarValue::Int64(Some(n))) if n == LONG as i64));
        });
    }

    #[test]
    fn lists_and_other_texts_count() {
        let pool = pool();
        within(&pool, || {
            let long = ScalarValue::Utf8View(Some("x".repeat(LONG)));
            let list = ScalarValue::List(ScalarValue::new_list(&[long], &DataType::Utf8View, true));
            let list = called(args(Vec::new(), 50), |_| Ok(ColumnarValue::Scalar(list))).unwrap();
            assert!(pool.reserved() >= LONG);
            drop(list);
            assert_eq!(pool.reserved(), 0);
            let plain = || Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some("x".repeat(LONG)))));
            let texts = called(args(Vec::new(), 3), |_| plain()).unwrap();
            assert!(pool.reserved() >= 3 * LONG);
            assert_eq!(texts.to_array(3).unwrap().as_string::<i32>().value(2).len(), LONG);
            assert!(called(args(Vec::new(), 300), |_| plain()).is_err());
        });
    }
}
