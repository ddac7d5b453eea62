//! Functions with PostgreSQL's meaning where the engine has none or another one.
//!
//! They travel in fragments by name, so every instance has all of them. A `Function` is plain data: what it takes, what it
//! gives, and how it computes a batch.

pub mod arithmetic;
pub mod concat;
pub mod convert;
mod date_trunc;
mod json;
mod longer;
mod numeric;
mod quoted;
pub mod ranks;
mod regex;
mod rows;
pub mod sorted;
mod sums;
mod temporal;
mod texts;
pub mod windowed;

use super::bounds::{Texts, check as check_bounds};
use super::counted;
use super::errors::wrap;
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use model::{Code, Error};
pub use rows::{only_row, several_rows};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
pub use temporal::interval_text;
use temporal::{date_part, plan as plan_temporal};
pub use texts::trim_padding;

/// A scalar function: the types its arguments are brought to, the field of its result, and its batches.
pub struct Function {
    name: &'static str,
    coerce: fn(&[DataType]) -> DfResult<Vec<DataType>>,
    returns: fn(&ReturnFieldArgs<'_>) -> DfResult<Field>,
    run: fn(&[ArrayRef], &ScalarFunctionArgs) -> DfResult<ArrayRef>,
    signature: Signature,
    /// Of the operator that it stands for.
    sign: Option<&'static str>,
}

impl Function {
    pub fn new(
        name: &'static str,
        coerce: fn(&[DataType]) -> DfResult<Vec<DataType>>,
        returns: fn(&ReturnFieldArgs<'_>) -> DfResult<Field>,
        run: fn(&[ArrayRef], &ScalarFunctionArgs) -> DfResult<ArrayRef>,
    ) -> Self {
        Self { name, coerce, returns, run, signature: Signature::user_defined(Volatility::Immutable), sign: None }
    }

    /// A function that stands for an operator, and is NULL where one of its sides is.
    fn operator(self, sign: &'static str) -> Self {
        Self { sign: Some(sign), ..self }
    }

    pub fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(self))
    }

    fn call(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) && !args.args.is_empty();
        let rows = if is_constant { 1 } else { args.number_rows };
        check_bounds(self.name, &args)?;
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let result = (self.run)(&arrays, &args)?;
        if is_constant {
            return ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    /// An operator's own: names of columns must not change when it becomes a function.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(match self.sign {
            Some(sign) => names.join(&format!(" {sign} ")),
            None => format!("{}({})", self.name, names.join(",")),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        self.sign.is_some()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        // Functions share it, and it does not know which of them is called.
        (self.coerce)(types).or_else(|_| wrong_types(self.name))
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let fields: Vec<FieldRef> = types.iter().map(|ty| Arc::new(Field::new("", ty.clone(), true))).collect();
        let scalars = vec![None; types.len()];
        let args = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
        (self.returns)(&args).map(|field| field.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        (self.returns)(&args).map(|field| Arc::new(field.with_name(self.name)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        counted::called(args, |args| self.call(args))
    }
}

/// All scalar functions, for the session to know.
pub fn scalars() -> Vec<Arc<ScalarUDF>> {
    [
        arithmetic::functions(),
        numeric::functions(),
        convert::functions(),
        texts::functions(),
        concat::functions(),
        longer::functions(),
        regex::functions(),
        temporal::functions(),
        date_trunc::functions(),
        json::functions(),
        rows::functions(),
        sorted::functions(),
    ]
    .concat()
}

/// Whether a scalar function is one of ours.
pub fn is_ours(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> =
        LazyLock::new(|| scalars().iter().map(|function| function.name().to_owned()).collect());
    NAMES.contains(name)
}

/// All aggregates, for the session to know.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    [sums::functions(), windowed::functions()].concat()
}

/// Calls one of `scalars`; the engine's own error when there is none of the name.
fn call(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    function.call(args)
}

fn out_of_range() -> DataFusionError {
    wrap(Error::new(Code::ValueOutOfRange, "the result of a computation does not fit its type"))
}

fn wrong_value(message: impl Into<String>) -> DataFusionError {
    wrap(Error::new(Code::ValueOutOfRange, message))
}

/// The error of a call with arguments that the function does not take.
fn wrong_types<T>(name: &str) -> DfResult<T> {
    let message = format!("function \"{name}\" does not take values of these types");
    Err(wrap(Error::new(Code::WrongType, message)))
}

/// Texts, and what may be one.
fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null)
}

/// The result of a function that gives a text.
fn text(_: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    Ok(nullable(DataType::Utf8View))
}

/// Calls `make` for each row without a NULL.
fn each_row(args: &[ArrayRef], mut make: impl FnMut(usize, &mut Texts) -> DfResult<()>) -> DfResult<ArrayRef> {
    let rows = args[0].len();
    let mut texts = Texts::new(rows);
    for row in 0..rows {
        if args.iter().any(|arg| arg.is_null(row)) {
            texts.made.append_null();
        } else {
            make(row, &mut texts)?;
        }
    }
    Ok(texts.finish())
}

fn nullable(ty: DataType) -> Field {
    Field::new("", ty, true)
}
