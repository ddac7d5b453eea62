//! Long values that functions make are counted for as long as anybody has them. Operators count the rows they keep; what the
//! expressions of a batch make on the way, in many columns side by side or in calls within calls, nobody else does.
//!
//! They have an account of their own beside that of the operators, which may count them too once they keep them. The account
//! has a reference to each part of memory that a function gave; when it is the last one the memory is free. So results are
//! not touched, and what a function passes on is known by its address.
//!
//! A function does not know its query. So whoever asks a plan for rows says whose values they are, for as long as that step
//! takes on its thread, and tasks that a plan starts meanwhile belong to the same query.

use super::bounds::{Size, is_long, size_of, size_of_scalar, within_bounds};
use super::memory::QueryPool;
use datafusion::arrow::array::{Array, ArrayData, ArrayRef, AsArray, UInt32Array};
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
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Results of so many bytes do not matter, also in each column of a query.
const SHORT_BYTES: usize = 128 << 10;
/// When so much was made it is looked what of it is still in use.
const LOOK_BYTES: usize = 16 << 20;

/// What the functions of a query have made here.
#[derive(Debug)]
pub struct Made {
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    /// By their address.
    buffers: HashMap<usize, Buffer>,
    counted: MemoryReservation,
    /// Since it was looked what is in use.
    new_bytes: usize,
}

impl Made {
    /// An account within the instance's memory that may have so many bytes.
    pub fn new(instance: Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(instance, bytes_max));
        let counted = MemoryConsumer::new("values of functions").register(&pool);
        Self { account: Mutex::new(Account { buffers: HashMap::new(), counted, new_bytes: 0 }) }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a result for as long as it is in use. Errors: `LimitExceeded`.
    fn note(&self, result: &ArrayRef) -> DfResult<()> {
        if size_of(result).total() <= SHORT_BYTES {
            return Ok(());
        }
        self.account().note(&result.to_data())
    }

    /// Counts what will be in use until the query is over, for all that is known. Errors: `LimitExceeded`.
    pub fn keep(&self, bytes: usize) -> DfResult<()> {
        self.account().grow(bytes)
    }

    fn look(&self) {
        let mut account = self.account();
        if account.new_bytes > LOOK_BYTES {
            account.look();
        }
    }

    /// The value of one row, for all rows: a column whose rows share it, where the type can.
    fn same_for_all(&self, one: ArrayRef, rows: usize) -> DfResult<ColumnarValue> {
        let (size, ty): (Size, DataType) = (size_of(&one), one.data_type().clone());
        if size.total() <= SHORT_BYTES {
            return ScalarValue::try_from_array(&one, 0).map(ColumnarValue::Scalar);
        }
        let is_shared = matches!(ty, DataType::Utf8View | DataType::BinaryView);
        if !is_shared {
            within_bounds(size.total().saturating_mul(rows))?;
        }
        let column = match ty.is_nested() {
            // The engine copies it for each row, when it needs a column.
            true => ScalarValue::try_from_array(&one, 0).map(ColumnarValue::Scalar)?,
            false => ColumnarValue::Array(take(&one, &UInt32Array::from_value(0, rows), None)?),
        };
        match &column {
            ColumnarValue::Array(column) => self.note(column)?,
            ColumnarValue::Scalar(_) => self.note(&one)?,
        }
        Ok(column)
    }
}

impl Account {
    fn note(&mut self, data: &ArrayData) -> DfResult<()> {
        for buffer in data.buffers() {
            let address = buffer.data_ptr().addr().get();
            if !self.buffers.contains_key(&address) {
                self.grow(buffer.capacity())?;
                self.buffers.insert(address, buffer.clone());
            }
        }
        data.child_data().iter().try_for_each(|child| self.note(child))
    }

    fn grow(&mut self, bytes: usize) -> DfResult<()> {
        self.new_bytes = self.new_bytes.saturating_add(bytes);
        if self.new_bytes > LOOK_BYTES {
            self.look();
        }
        self.counted.try_grow(bytes)
    }

    /// Gives back what nobody else has.
    fn look(&mut self) {
        self.new_bytes = 0;
        let counted = &self.counted;
        self.buffers.retain(|_, buffer| {
            let is_used = buffer.strong_count() > 1;
            if !is_used {
                counted.shrink(buffer.capacity());
            }
            is_used
        });
    }
}

thread_local! {
    /// By the query that runs on this thread just now.
    static MADE: RefCell<Option<Arc<Made>>> = const { RefCell::new(None) };
}

/// Does a step of a query: what is made meanwhile is its own.
fn within<T>(made: &Arc<Made>, step: impl FnOnce() -> T) -> T {
    struct Outer(Option<Arc<Made>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            MADE.set(self.0.take());
        }
    }
    let _outer = Outer(MADE.replace(Some(made.clone())));
    step()
}

/// Of the query that runs on this thread; None while one is planned.
pub fn made() -> Option<Arc<Made>> {
    MADE.with_borrow(Clone::clone)
}

/// The rows of a plan, in a context with a `Made` if what its functions make is to be counted.
pub fn rows_of(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
    let Some(made) = context.session_config().get_extension::<Made>() else { return execute_stream(plan, context) };
    let mut rows = within(&made, || execute_stream(plan, context))?;
    let schema = rows.schema();
    let stream = poll_fn(move |context| {
        let step = within(&made, || rows.poll_next_unpin(context));
        made.look();
        step
    });
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
        let Some(made) = made() else { return task };
        std::future::poll_fn(move |context| within(&made, || task.poll_unpin(context))).boxed()
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        let Some(made) = made() else { return block };
        Box::new(move || within(&made, block))
    }
}

/// Calls a function, so that its long results count. A long value that is the same for all rows counts once, so it becomes a
/// column of rows that share it; `call` gets such columns as one row, and with it the bounds of one.
pub fn called(
    args: ScalarFunctionArgs,
    call: impl FnOnce(ScalarFunctionArgs) -> DfResult<ColumnarValue>,
) -> DfResult<ColumnarValue> {
    let Some(made) = made() else { return call(args) };
    let rows = args.number_rows;
    if is_same_for_all(&args) {
        let one = |arg: ColumnarValue| match arg {
            ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(0, 1)),
            scalar => scalar,
        };
        let args = ScalarFunctionArgs { args: args.args.into_iter().map(one).collect(), number_rows: 1, ..args };
        return made.same_for_all(call(args)?.into_array(1)?, rows);
    }
    if !is_long(args.return_field.data_type()) {
        return call(args);
    }
    match call(args)? {
        ColumnarValue::Array(column) => {
            made.note(&column)?;
            Ok(ColumnarValue::Array(column))
        }
        ColumnarValue::Scalar(value) if size_of_scalar(&value)?.total() > SHORT_BYTES => {
            made.same_for_all(value.to_array()?, rows)
        }
        short => Ok(short),
    }
}

/// Whether no argument differs between the rows, and one of them is a long text.
fn is_same_for_all(args: &ScalarFunctionArgs) -> bool {
    args.number_rows > 1
        && args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)))
        && args.args.iter().all(|arg| match arg {
            ColumnarValue::Array(column) => is_one_long_value(column),
            ColumnarValue::Scalar(_) => true,
        })
}

fn is_one_long_value(column: &ArrayRef) -> bool {
    let views = match column.data_type() {
        DataType::Utf8View => column.as_string_view().views(),
        DataType::BinaryView => column.as_binary_view().views(),
        _ => return false,
    };
    // The length of a value is in the low half of its view.
    let is_long = views.first().is_some_and(|view| (*view as u32) as usize > SHORT_BYTES);
    is_long && column.null_count() == 0 && views.iter().all(|view| *view == views[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::StringViewArray;
    use datafusion::arrow::datatypes::Field;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    const LONG: usize = 20 << 20;

    fn account() -> Arc<Made> {
        Arc::new(Made::new(Arc::new(GreedyMemoryPool::new(usize::MAX)), 8 * LONG))
    }

    fn counted(made: &Made) -> usize {
        let mut account = made.account();
        account.look();
        account.counted.size()
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
        let account = account();
        within(&account, || {
            let column = make(LONG, 100).unwrap();
            assert!((LONG..2 * LONG).contains(&counted(&account)));
            let part = column.to_array(100).unwrap().slice(7, 1);
            drop(column);
            assert_eq!(part.as_string_view().value(0).len(), LONG);
            assert!(counted(&account) >= LONG);
            drop(part);
            assert_eq!(counted(&account), 0);
            let kept: Vec<_> = (0..100).map_while(|_| make(LONG, 1).ok()).collect();
            assert!((6..=8).contains(&kept.len()), "{}", kept.len());
            assert!(make(100, 1).is_ok());
            drop(kept);
            assert!(make(LONG, 1).is_ok());
        });
        assert_eq!(counted(&account), 0);
        assert!(make(LONG, 1).is_ok());
        assert_eq!(counted(&account), 0);
    }

    #[test]
    fn what_a_function_passes_on_counts_once() {
        let account = account();
        within(&account, || {
            let column = make(LONG, 3).unwrap();
            let (before, short) = (counted(&account), Arc::new(StringViewArray::from(vec!["a", "b", "c"])));
            let columns = vec![column, ColumnarValue::Array(short)];
            let passed = called(args(columns, 3), |args| Ok(args.args[0].clone())).unwrap();
            assert_eq!(passed.to_array(3).unwrap().len(), 3);
            assert_eq!(counted(&account), before);
        });
    }

    #[test]
    fn a_function_of_what_all_rows_share_is_called_for_one() {
        within(&account(), || {
            let mut lengths = args(vec![make(LONG, 8192).unwrap(), text(1)], 8192);
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
    fn what_rows_can_not_share_has_the_bounds_of_a_column() {
        let account = account();
        within(&account, || {
            let long = ScalarValue::Utf8View(Some("x".repeat(LONG)));
            let list = ScalarValue::List(ScalarValue::new_list(&[long], &DataType::Utf8View, true));
            let call = |rows| called(args(Vec::new(), rows), |_| Ok(ColumnarValue::Scalar(list.clone())));
            assert!(call(5).is_ok());
            assert!(call(50).is_err());
            let plain = || Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some("x".repeat(LONG)))));
            let texts = called(args(Vec::new(), 3), |_| plain()).unwrap();
            assert!(counted(&account) >= 3 * LONG);
            assert_eq!(texts.to_array(3).unwrap().as_string::<i32>().value(2).len(), LONG);
            assert!(called(args(Vec::new(), 300), |_| plain()).is_err());
        });
    }
}
