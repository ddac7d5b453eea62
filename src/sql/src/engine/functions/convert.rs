//! CAST, where it means something else than the engine's own.
//!
//! `convert_to(value, 'type')` names its target in a constant, so that the result's type follows from the call. Text is read
//! as a value of the type reads it when it is stored; numbers are rounded, where the engine cuts; lengths of CHAR and
//! VARCHAR are kept.
//!
//! `as_written(CAST(value AS type), 'type')` is its first argument, and so is `as_written((a - b), '()')`. They stand in plans
//! until these have our meaning, because the engine names a CAST like its value and leaves parentheses out of names: it
//! took `sum(CAST(a AS BIGINT))` and `sum(a)` for one column.

use super::{Function, call, nullable, out_of_range, wrong_types};
use crate::engine::bounds::Texts;
use crate::engine::errors::wrap;
use crate::engine::types::{TYPE_MARK, arrow_type, column_type_of, mark_of, marked, one_zero};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, PrimitiveArray,
    StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, lit};
use model::{Code, ColumnType, Decimal, Error, Value};
use std::sync::{Arc, LazyLock};

const NAME: &str = "convert_to";
const AS_WRITTEN: &str = "as_written";

static CONVERT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let coerce = |types: &[DataType]| match types {
        [value, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8] => Ok(vec![plain(value), DataType::Utf8]),
        _ => wrong_types(NAME),
    };
    Function::new(NAME, coerce, returns, run).udf()
});

static WRITTEN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let coerce = |types: &[DataType]| match types {
        [_, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8] => Ok(types.to_vec()),
        _ => wrong_types(AS_WRITTEN),
    };
    let returns = |args: &ReturnFieldArgs<'_>| match args.arg_fields.first() {
        Some(field) => Ok(field.as_ref().clone()),
        None => wrong_types(AS_WRITTEN),
    };
    Function::new(AS_WRITTEN, coerce, returns, |args, _| Ok(args[0].clone())).udf()
});

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![CONVERT.clone(), WRITTEN.clone()]
}

/// One type for all spellings of text, of bytes, and of fractions of a second.
fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::BinaryView,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Float16 => DataType::Float32,
        other => other.clone(),
    }
}

/// `value` as a `ty`.
pub fn convert_to(value: Expr, ty: ColumnType) -> Expr {
    call(CONVERT.clone(), vec![value, lit(ty.to_string())])
}

/// What `as_written` stands for.
pub fn as_written(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == AS_WRITTEN => call.args.first(),
        _ => None,
    }
}

/// A CAST as the planner wrote it, in our words; None where the engine's own is right.
pub fn replace(cast: &Cast, schema: &DFSchema) -> Option<Expr> {
    let (_, from) = cast.expr.to_field(schema).ok()?;
    let to = target(&cast.field)?;
    let is_text = matches!(from.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    let is_cut = matches!(to, ColumnType::Char { .. } | ColumnType::Varchar { .. });
    let differs = match from.data_type() {
        from if is_refused(from, to) => true,
        _ if is_text && to == ColumnType::Text => mark_of(&from).is_some(),
        _ if is_text || is_cut => true,
        DataType::Float64 if to == ColumnType::Real => true,
        DataType::Float32 | DataType::Float64 => to.is_integer() || to == ColumnType::Text,
        DataType::Decimal128(..) => to.is_integer() || matches!(to, ColumnType::Real),
        DataType::Timestamp(..) | DataType::Time64(_) | DataType::Time32(_) | DataType::Interval(_) => {
            to == ColumnType::Text
        }
        _ => false,
    };
    differs.then(|| convert_to(cast.expr.as_ref().clone(), to))
}

/// Whether PostgreSQL has no cast between such types, though the engine has.
fn is_refused(from: &DataType, to: ColumnType) -> bool {
    use ColumnType as T;
    let to_number = to.is_integer() || matches!(to, T::Real | T::Double | T::Decimal { .. });
    match from {
        _ if from.is_numeric() || *from == DataType::Boolean => {
            matches!(to, T::Date | T::Time | T::Timestamp | T::TimestampTz | T::Uuid | T::Varbinary)
        }
        DataType::Date32 | DataType::Date64 if to == T::Time => true,
        DataType::Time32(_) | DataType::Time64(_) if matches!(to, T::Date | T::Timestamp | T::TimestampTz) => true,
        _ if from.is_temporal() => to_number || matches!(to, T::Boolean | T::Uuid | T::Varbinary),
        _ => false,
    }
}

/// What a value of the type is called in messages.
fn kind_of(ty: &DataType) -> &'static str {
    match ty {
        DataType::Boolean => "a boolean",
        DataType::Date32 | DataType::Date64 => "a date",
        DataType::Time32(_) | DataType::Time64(_) => "a time",
        DataType::Timestamp(..) => "a timestamp",
        DataType::Interval(_) | DataType::Duration(_) => "an interval",
        _ => "a number",
    }
}

/// The type that a field of CAST stands for.
fn target(field: &Field) -> Option<ColumnType> {
    if let Some(ty) = field.metadata().get(TYPE_MARK).and_then(|mark| parse_type(mark)) {
        return Some(ty);
    }
    column_type_of(field.data_type())
}

/// Reads a type as `ColumnType` writes it.
pub fn parse_type(text: &str) -> Option<ColumnType> {
    // To the host, an integer has 64 bits.
    if text == "integer" {
        return Some(ColumnType::Integer);
    }
    let Some((name, rest)) = text.split_once('(') else { return ColumnType::from_name(text) };
    let numbers: Vec<u32> = rest.strip_suffix(')')?.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    Some(match (name, &numbers[..]) {
        ("char", [length]) => ColumnType::Char { length: *length },
        ("varchar", [length]) => ColumnType::Varchar { length: *length },
        ("decimal", [precision, scale]) => {
            ColumnType::Decimal { precision: u8::try_from(*precision).ok()?, scale: u8::try_from(*scale).ok()? }
        }
        _ => return None,
    })
}

fn named(scalar: Option<&ScalarValue>) -> DfResult<ColumnType> {
    let name = match scalar {
        Some(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name))) => name,
        _ => return wrong_types(NAME),
    };
    parse_type(name).map_or_else(|| wrong_types(NAME), Ok)
}

fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    let ty = named(args.scalar_arguments.get(1).copied().flatten())?;
    if let Some(from) = args.arg_fields.first()
        && is_refused(from.data_type(), ty)
    {
        let message = format!("{} can not be cast to {ty}", kind_of(from.data_type()));
        return Err(wrap(Error::new(Code::WrongType, message)));
    }
    Ok(marked(nullable(arrow_type(ty)), ty))
}

fn run(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let datafusion::logical_expr::ColumnarValue::Scalar(name) = &call.args[1] else { return wrong_types(NAME) };
    let ty = named(Some(name))?;
    let value = cast(&args[0], &plain(args[0].data_type()))?;
    match value.data_type() {
        DataType::Utf8View => from_text(value.as_string_view(), ty, mark_of(&call.arg_fields[0])),
        DataType::Float32 | DataType::Float64 if ty.is_integer() => {
            let doubles = cast(&value, &DataType::Float64)?;
            let doubles = doubles.as_primitive::<Float64Type>();
            integers(ty, doubles.iter().map(|value| value.map(|d| Value::Double(d).coerce(ty)).transpose()))
        }
        DataType::Decimal128(_, scale) if ty.is_integer() => {
            let scale = u8::try_from(*scale).map_err(|_| out_of_range())?;
            let decimals = value.as_primitive::<Decimal128Type>();
            let rounded = |unscaled| Value::Decimal(Decimal { unscaled, scale }).coerce(ty);
            integers(ty, decimals.iter().map(|value| value.map(rounded).transpose()))
        }
        DataType::Decimal128(..) if ty == ColumnType::Real => {
            Ok(cast(&cast(&value, &DataType::Float64)?, &DataType::Float32)?)
        }
        DataType::Float64 if ty == ColumnType::Real => {
            let singles = cast(&value, &DataType::Float32)?;
            let is_lost = |(double, single): (Option<f64>, Option<f32>)| {
                double.is_some_and(f64::is_finite) && single.is_some_and(f32::is_infinite)
            };
            match value.as_primitive::<Float64Type>().iter().zip(singles.as_primitive::<Float32Type>()).any(is_lost) {
                true => Err(out_of_range()),
                false => Ok(singles),
            }
        }
        _ => from_text(to_text(&value)?.as_string_view(), ty, None),
    }
}

fn integers(ty: ColumnType, values: impl Iterator<Item = model::Result<Option<Value>>>) -> DfResult<ArrayRef> {
    let values = values.map(|value| {
        value.map_err(wrap).map(|value| match value {
            Some(Value::Integer(integer)) => Some(integer),
            _ => None,
        })
    });
    Ok(cast(&values.collect::<DfResult<Int64Array>>()?, &arrow_type(ty))?)
}

/// Any value as text, as PostgreSQL prints it.
pub fn to_text(array: &ArrayRef) -> DfResult<ArrayRef> {
    let shown = |value: Value| value.to_string();
    Ok(match array.data_type() {
        DataType::Float32 => texts::<Float32Type>(array, |f| float_text(f64::from(f), &format!("{f:e}"), 6)),
        DataType::Float64 => texts::<Float64Type>(array, |f| float_text(f, &format!("{f:e}"), 15)),
        DataType::Date32 => texts::<Date32Type>(array, |day| shown(Value::Date(day.into()))),
        DataType::Time64(_) => texts::<Time64MicrosecondType>(array, |time| shown(Value::Time(time))),
        DataType::Timestamp(_, None) => texts::<TimestampMicrosecondType>(array, |at| shown(Value::Timestamp(at))),
        DataType::Timestamp(_, Some(_)) => texts::<TimestampMicrosecondType>(array, |at| shown(Value::TimestampTz(at))),
        DataType::Interval(_) => {
            let intervals = cast(array, &DataType::Interval(datafusion::arrow::datatypes::IntervalUnit::MonthDayNano))?;
            texts::<IntervalMonthDayNanoType>(&intervals, super::temporal::interval_text)
        }
        _ => cast_with_options(array, &DataType::Utf8View, &CastOptions { safe: false, ..CastOptions::default() })?,
    })
}

fn texts<T: ArrowPrimitiveType>(array: &ArrayRef, show: impl Fn(T::Native) -> String) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Arc::new(array.iter().map(|value| value.map(&show)).collect::<StringViewArray>())
}

/// The shortest digits that read back as the same number, with an exponent from `digits` digits on. `shortest` is Rust's
/// form with an exponent.
fn float_text(value: f64, shortest: &str, digits: i32) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..digits).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    // Shifting the point of the shortest digits keeps them the shortest.
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent + 1;
    if point <= 0 {
        return format!("{sign}0.{}{all}", "0".repeat(point.unsigned_abs() as usize));
    }
    let point = point as usize;
    if all.len() <= point {
        return format!("{sign}{all}{}", "0".repeat(point - all.len()));
    }
    format!("{sign}{}.{}", &all[..point], &all[point..])
}

fn from_text(texts: &StringViewArray, ty: ColumnType, mark: Option<ColumnType>) -> DfResult<ArrayRef> {
    use ColumnType as T;
    let is_padded = matches!(mark, Some(T::Char { .. }));
    match ty {
        T::Text | T::Json | T::Varchar { .. } | T::Char { .. } | T::Uuid => {
            let mut out = Texts::new(texts.len());
            for text in texts {
                let text = text.map(|text| as_text(text, ty, is_padded)).transpose()?;
                // Padding may make it far longer.
                out.reserve(text.as_ref().map_or(0, String::len))?;
                out.made.append_option(text);
            }
            Ok(out.finish())
        }
        T::SmallInt | T::Integer | T::BigInt | T::Unsigned => {
            integers(ty, texts.iter().map(|text| text.map(|text| read(text, ty)).transpose()))
        }
        T::Boolean => {
            let values = texts.iter().map(|text| text.map(read_boolean).transpose());
            Ok(Arc::new(values.collect::<DfResult<BooleanArray>>()?))
        }
        T::Real | T::Double => {
            let values = texts.iter().map(|text| text.map(|text| read_float(text, ty)).transpose());
            Ok(cast(&values.collect::<DfResult<Float64Array>>()?, &arrow_type(ty))?)
        }
        T::Decimal { precision, scale } => {
            let values = texts.iter().map(|text| match text.map(|text| read(text, ty)).transpose().map_err(wrap)? {
                Some(Value::Decimal(decimal)) => Ok(Some(decimal.unscaled)),
                _ => Ok(None),
            });
            let values = values.collect::<DfResult<Decimal128Array>>()?;
            Ok(Arc::new(values.with_precision_and_scale(precision, scale as i8)?))
        }
        T::Varbinary => {
            let values = texts.iter().map(|text| text.map(read_bytes).transpose()).collect::<DfResult<Vec<_>>>()?;
            Ok(Arc::new(values.iter().map(|value| value.as_deref()).collect::<BinaryViewArray>()))
        }
        T::Date | T::Time | T::Timestamp | T::TimestampTz => instants(texts, ty),
    }
}

fn as_text(text: &str, ty: ColumnType, is_padded: bool) -> DfResult<String> {
    let text = if is_padded { text.trim_end_matches(' ') } else { text };
    Ok(match ty {
        // CAST cuts, other than storing.
        ColumnType::Varchar { length } => text.chars().take(length as usize).collect(),
        ColumnType::Char { length } => {
            let cut: String = text.chars().take(length as usize).collect();
            let missing = (length as usize).saturating_sub(cut.chars().count());
            cut + &" ".repeat(missing)
        }
        ColumnType::Uuid => Value::Uuid(model::value::parse_uuid(text.trim()).map_err(wrap)?).to_string(),
        ColumnType::Json if !model::json::is_json(text) => {
            return Err(wrap(Error::new(Code::WrongType, "the text is not JSON")));
        }
        _ => text.to_owned(),
    })
}

pub fn unreadable(text: &str, ty: ColumnType) -> Error {
    Error::new(
        Code::WrongType,
        format!("\"{}\" is not a value of type {ty}", text.chars().take(60).collect::<String>()),
    )
}

/// A number out of text, as the type keeps it.
fn read(text: &str, ty: ColumnType) -> model::Result<Value> {
    let trimmed = text.trim();
    let unreadable = || unreadable(text, ty);
    if ty.is_integer() {
        let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
        return match digits.parse::<i128>() {
            Ok(integer) => match i64::try_from(integer) {
                Ok(integer) => Value::Integer(integer).coerce(ty),
                Err(_) => Err(Error::new(Code::ValueOutOfRange, format!("{integer} does not fit {ty}"))),
            },
            Err(_) => Err(unreadable()),
        };
    }
    let decimal: Decimal = trimmed.strip_prefix('+').unwrap_or(trimmed).parse().map_err(|_| unreadable())?;
    Value::Decimal(decimal).coerce(ty)
}

fn read_float(text: &str, ty: ColumnType) -> DfResult<f64> {
    let trimmed = text.trim();
    let value = one_zero(trimmed.parse().map_err(|_| wrap(unreadable(text, ty)))?);
    let says_infinity = trimmed.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("inf");
    if value.is_infinite() && !says_infinity {
        return Err(wrap(Error::new(Code::ValueOutOfRange, format!("{trimmed} does not fit {ty}"))));
    }
    match Value::Double(value).coerce(ty).map_err(wrap)? {
        Value::Double(value) => Ok(value),
        _ => Ok(value),
    }
}

/// PostgreSQL's words, each of which may be cut short.
fn read_boolean(text: &str) -> DfResult<bool> {
    let word = text.trim().to_ascii_lowercase();
    let is = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    match () {
        () if is("true", 1) || is("yes", 1) || word == "on" || word == "1" => Ok(true),
        () if is("false", 1) || is("no", 1) || is("off", 2) || word == "0" => Ok(false),
        () => Err(wrap(unreadable(text, ColumnType::Boolean))),
    }
}

/// `\x` and digits, or the text's own bytes.
fn read_bytes(text: &str) -> DfResult<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else { return Ok(text.as_bytes().to_vec()) };
    let nibbles: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).map(|n| n as u8)).collect();
    match nibbles.filter(|nibbles| nibbles.len() % 2 == 0) {
        Some(nibbles) => Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
        None => Err(wrap(unreadable(text, ColumnType::Varbinary))),
    }
}

fn instants(texts: &StringViewArray, ty: ColumnType) -> DfResult<ArrayRef> {
    let read = |text: &str| match Value::Text(text.trim().to_owned()).coerce(ty).map_err(wrap)? {
        Value::Date(n) | Value::Time(n) | Value::Timestamp(n) | Value::TimestampTz(n) => Ok(n),
        _ => Err(wrap(unreadable(text, ty))),
    };
    let values = texts.iter().map(|text| text.map(read).transpose()).collect::<DfResult<Vec<Option<i64>>>>()?;
    Ok(match ty {
        ColumnType::Date => cast(&cast(&Int64Array::from(values), &DataType::Int32)?, &DataType::Date32)?,
        ColumnType::Time => Arc::new(Int64Array::from(values).reinterpret_cast::<Time64MicrosecondType>()),
        ColumnType::TimestampTz => Arc::new(TimestampMicrosecondArray::from(values).with_timezone("+00:00")),
        _ => Arc::new(Int64Array::from(values).reinterpret_cast::<TimestampMicrosecondType>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_shown_as_postgresql_shows_them() {
        let double = |value: f64| float_text(value, &format!("{value:e}"), 15);
        let single = |value: f32| float_text(value.into(), &format!("{value:e}"), 6);
        assert_eq!(double(1.0), "1");
        assert_eq!(double(-0.5), "-0.5");
        assert_eq!(double(123.25), "123.25");
        assert_eq!(double(1e300), "1e+300");
        assert_eq!(double(1.5e-7), "1.5e-07");
        assert_eq!(double(0.0001), "0.0001");
        assert_eq!(double(100_000.0), "100000");
        assert_eq!(double(1e15), "1e+15");
        assert_eq!(double(0.0), "0");
        assert_eq!(single(0.1), "0.1");
        assert_eq!(single(1e6), "1e+06");
        assert_eq!(double(f64::INFINITY), "Infinity");
    }

    #[test]
    fn types_are_read_as_they_are_written() {
        for ty in [
            ColumnType::Text,
            ColumnType::Integer,
            ColumnType::Char { length: 3 },
            ColumnType::Varchar { length: 12 },
            ColumnType::Decimal { precision: 10, scale: 2 },
            ColumnType::TimestampTz,
            ColumnType::Uuid,
        ] {
            assert_eq!(parse_type(&ty.to_string()), Some(ty));
        }
    }

    #[test]
    fn booleans_have_postgresql_s_words() {
        for (word, value) in [("t", true), ("YES", true), ("on", true), ("1", true), ("f", false), ("of", false)] {
            assert_eq!(read_boolean(word).unwrap(), value, "{word}");
        }
        assert!(read_boolean("o").is_err() && read_boolean("yess").is_err() && read_boolean("").is_err());
    }
}
