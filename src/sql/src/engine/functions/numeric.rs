//! Mathematical functions on numbers: exact on integers and decimals, errors where the engine would give NaN or infinity.

use super::{Function, nullable, out_of_range, wrong_types, wrong_value};
use crate::engine::types::one_zero;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let same = |args: &ReturnFieldArgs<'_>| Ok(nullable(args.arg_fields[0].data_type().clone()));
    let double = |_: &ReturnFieldArgs<'_>| Ok(nullable(DataType::Float64));
    vec![
        Function::new("abs", one_number, same, abs).udf(),
        Function::new("sign", one_number, same, sign).udf(),
        Function::new("ceil", one_number, whole, |args, _| round_by(args, Rounding::Up)).udf(),
        Function::new("ceiling", one_number, whole, |args, _| round_by(args, Rounding::Up)).udf(),
        Function::new("floor", one_number, whole, |args, _| round_by(args, Rounding::Down)).udf(),
        Function::new("round", number_and_digits, with_digits, |args, call| round_to(args, call, Rounding::Half)).udf(),
        Function::new("trunc", number_and_digits, with_digits, |args, call| round_to(args, call, Rounding::Cut)).udf(),
        Function::new("sqrt", one_double, double, |args, _| map(args, "sqrt", f64::sqrt)).udf(),
        Function::new("cbrt", one_double, double, |args, _| map(args, "cbrt", f64::cbrt)).udf(),
        Function::new("exp", one_double, double, |args, _| map(args, "exp", f64::exp)).udf(),
        Function::new("ln", one_double, double, |args, _| map(args, "ln", f64::ln)).udf(),
        Function::new("log10", one_double, double, |args, _| map(args, "log10", f64::log10)).udf(),
        Function::new("sin", one_double, double, |args, _| map(args, "sin", f64::sin)).udf(),
        Function::new("cos", one_double, double, |args, _| map(args, "cos", f64::cos)).udf(),
        Function::new("tan", one_double, double, |args, _| map(args, "tan", f64::tan)).udf(),
        Function::new("asin", one_double, double, |args, _| map(args, "asin", f64::asin)).udf(),
        Function::new("acos", one_double, double, |args, _| map(args, "acos", f64::acos)).udf(),
        Function::new("atan", one_double, double, |args, _| map(args, "atan", f64::atan)).udf(),
        Function::new("degrees", one_double, double, |args, _| map(args, "degrees", f64::to_degrees)).udf(),
        Function::new("radians", one_double, double, |args, _| map(args, "radians", f64::to_radians)).udf(),
        Function::new("atan2", two_doubles, double, |args, _| map2(args, "atan2", f64::atan2)).udf(),
        Function::new("power", two_doubles, double, |args, _| map2(args, "power", power)).udf(),
        Function::new("pow", two_doubles, double, |args, _| map2(args, "power", power)).udf(),
        Function::new("log", one_or_two_doubles, double, log).udf(),
        Function::new("mod", two_integers, same, modulo).udf(),
        Function::new("pi", |_| Ok(Vec::new()), double, pi).udf(),
    ]
}

fn is_number(ty: &DataType) -> bool {
    ty.is_numeric() || ty.is_null()
}

/// Numbers that are not stored in these widths come as the next one that is.
fn number(ty: &DataType) -> DataType {
    match ty {
        DataType::Null => DataType::Float64,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        other => other.clone(),
    }
}

fn one_number(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [ty] if is_number(ty) => Ok(vec![number(ty)]),
        _ => wrong_types("of a number"),
    }
}

fn number_and_digits(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [ty] if is_number(ty) => Ok(vec![number(ty)]),
        [ty, digits] if is_number(ty) && (digits.is_integer() || digits.is_null()) => {
            let ty = match number(ty) {
                DataType::Float32 => DataType::Float64,
                ty if ty.is_integer() => DataType::Decimal128(19, 0),
                ty => ty,
            };
            Ok(vec![ty, DataType::Int64])
        }
        _ => wrong_types("round"),
    }
}

fn doubles(types: &[DataType], counts: &[usize]) -> DfResult<Vec<DataType>> {
    if counts.contains(&types.len()) && types.iter().all(is_number) {
        return Ok(vec![DataType::Float64; types.len()]);
    }
    wrong_types("of numbers")
}

fn one_double(types: &[DataType]) -> DfResult<Vec<DataType>> {
    doubles(types, &[1])
}

fn two_doubles(types: &[DataType]) -> DfResult<Vec<DataType>> {
    doubles(types, &[2])
}

fn one_or_two_doubles(types: &[DataType]) -> DfResult<Vec<DataType>> {
    doubles(types, &[1, 2])
}

/// Integers in the wider type, anything else as decimals.
fn two_integers(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [left, right] if left.is_integer() && right.is_integer() => {
            let [left, right] = [number(left), number(right)];
            let wide = if left.primitive_width() >= right.primitive_width() { left } else { right };
            Ok(vec![wide.clone(), wide])
        }
        [left, right] if is_number(left) && is_number(right) => {
            let scale = |ty: &DataType| if let DataType::Decimal128(_, scale) = ty { *scale } else { 0 };
            let ty = DataType::Decimal128(38, scale(left).max(scale(right)));
            Ok(vec![ty.clone(), ty])
        }
        _ => wrong_types("mod"),
    }
}

/// Whole numbers keep their kind; decimals lose their digits after the point.
fn whole(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    Ok(nullable(match args.arg_fields[0].data_type() {
        DataType::Decimal128(_, _) => DataType::Decimal128(38, 0),
        ty if ty.is_integer() => DataType::Float64,
        ty => ty.clone(),
    }))
}

/// Decimals get as many digits as asked for, when that is a constant.
fn with_digits(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    let ty = args.arg_fields[0].data_type();
    let digits = match args.scalar_arguments.get(1) {
        None => Some(0),
        Some(Some(ScalarValue::Int64(Some(digits)))) => Some(*digits),
        Some(_) => None,
    };
    Ok(nullable(match ty {
        DataType::Decimal128(_, scale) => {
            DataType::Decimal128(38, digits.map_or(*scale, |digits| digits.clamp(0, (*scale).max(0).into()) as i8))
        }
        ty if ty.is_integer() => DataType::Float64,
        ty => ty.clone(),
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Up,
    Down,
    Half,
    Cut,
}

impl Rounding {
    fn float(self, value: f64) -> f64 {
        one_zero(match self {
            Rounding::Up => value.ceil(),
            Rounding::Down => value.floor(),
            Rounding::Half => value.round_ties_even(),
            Rounding::Cut => value.trunc(),
        })
    }

    /// `value` divided by `unit`, which is positive.
    fn divided(self, value: i128, unit: i128) -> i128 {
        match self {
            Rounding::Up => value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0),
            Rounding::Down => value.div_euclid(unit),
            Rounding::Cut => value / unit,
            Rounding::Half => {
                let (quotient, rest) = (value / unit, value % unit);
                quotient + if rest.unsigned_abs() * 2 >= unit.unsigned_abs() { value.signum() } else { 0 }
            }
        }
    }
}

fn checked<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    compute: impl Fn(T::Native) -> Option<T::Native>,
) -> DfResult<ArrayRef> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let computed: PrimitiveArray<T> = array.try_unary(|value| compute(value).ok_or_else(out_of_range))?;
    Ok(Arc::new(computed.with_data_type(array.data_type().clone())))
}

fn abs(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    match args[0].data_type() {
        DataType::Int16 => checked::<Int16Type>(&args[0], i16::checked_abs),
        DataType::Int32 => checked::<Int32Type>(&args[0], i32::checked_abs),
        DataType::Int64 => checked::<Int64Type>(&args[0], i64::checked_abs),
        DataType::Decimal128(..) => checked::<Decimal128Type>(&args[0], i128::checked_abs),
        DataType::Float32 => checked::<Float32Type>(&args[0], |value| Some(value.abs())),
        _ => checked::<Float64Type>(&args[0], |value| Some(value.abs())),
    }
}

fn sign(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let float = |value: f64| if value == 0.0 { 0.0 } else { value.signum() };
    match args[0].data_type() {
        DataType::Int16 => checked::<Int16Type>(&args[0], |value| Some(value.signum())),
        DataType::Int32 => checked::<Int32Type>(&args[0], |value| Some(value.signum())),
        DataType::Int64 => checked::<Int64Type>(&args[0], |value| Some(value.signum())),
        DataType::Decimal128(_, scale) => {
            let one = 10_i128.pow(scale.unsigned_abs().into());
            checked::<Decimal128Type>(&args[0], |value| Some(value.signum() * one))
        }
        DataType::Float32 => checked::<Float32Type>(&args[0], |value| Some(float(value.into()) as f32)),
        _ => checked::<Float64Type>(&args[0], |value| Some(float(value))),
    }
}

fn round_by(args: &[ArrayRef], rounding: Rounding) -> DfResult<ArrayRef> {
    match args[0].data_type() {
        DataType::Decimal128(_, scale) => rounded(&args[0], *scale, 0, rounding),
        DataType::Float32 => checked::<Float32Type>(&args[0], |value| Some(rounding.float(value.into()) as f32)),
        DataType::Float64 => checked::<Float64Type>(&args[0], |value| Some(rounding.float(value))),
        _ => Ok(cast(&args[0], &DataType::Float64)?),
    }
}

/// Decimals of `scale`, rounded to `digits` after the point, which may be negative; the result has `digits` or 0.
fn rounded(array: &ArrayRef, scale: i8, digits: i64, rounding: Rounding) -> DfResult<ArrayRef> {
    let drop = u32::try_from(i64::from(scale) - digits).unwrap_or(0);
    let unit = 10_i128.checked_pow(drop).ok_or_else(out_of_range)?;
    let back = 10_i128.checked_pow(u32::try_from(-digits).unwrap_or(0)).ok_or_else(out_of_range)?;
    let scale = digits.clamp(0, scale.max(0).into()) as i8;
    let array = array.as_primitive::<Decimal128Type>();
    let round = |value: i128| rounding.divided(value, unit).checked_mul(back).ok_or_else(out_of_range);
    let values: Decimal128Array = array.try_unary(round)?;
    Ok(Arc::new(values.with_precision_and_scale(38, scale)?))
}

fn round_to(args: &[ArrayRef], call: &ScalarFunctionArgs, rounding: Rounding) -> DfResult<ArrayRef> {
    let Some(digits) = args.get(1) else {
        return match args[0].data_type() {
            ty if ty.is_integer() => Ok(cast(&args[0], &DataType::Float64)?),
            _ => round_by(args, rounding),
        };
    };
    let is_constant = matches!(call.args[1], ColumnarValue::Scalar(_));
    let digits = digits.as_primitive::<Int64Type>();
    let DataType::Decimal128(_, scale) = args[0].data_type() else {
        let values = args[0].as_primitive::<Float64Type>().iter().zip(digits);
        let round = |(value, digits): (Option<f64>, Option<i64>)| {
            let unit = 10_f64.powi(digits?.clamp(-300, 300) as i32);
            Some(rounding.float(value? * unit) / unit)
        };
        return Ok(Arc::new(values.map(round).collect::<Float64Array>()));
    };
    if is_constant {
        return match digits.iter().next().flatten() {
            Some(digits) => rounded(&args[0], *scale, digits, rounding),
            None => Ok(datafusion::arrow::array::new_null_array(call.return_type(), args[0].len())),
        };
    }
    // As many digits for each row as it says, in the column's own scale.
    let values = args[0].as_primitive::<Decimal128Type>();
    let round = |(value, digits): (Option<i128>, Option<i64>)| {
        let (Some(value), Some(digits)) = (value, digits) else { return Ok(None) };
        let drop = u32::try_from(i64::from(*scale) - digits).unwrap_or(0);
        let unit = 10_i128.checked_pow(drop.min(38)).ok_or_else(out_of_range)?;
        rounding.divided(value, unit).checked_mul(unit).map(Some).ok_or_else(out_of_range)
    };
    let values = values.iter().zip(digits).map(round).collect::<DfResult<Decimal128Array>>()?;
    Ok(Arc::new(values.with_precision_and_scale(38, *scale)?))
}

/// A result that is no number, or infinite, although the arguments were finite, is an error.
fn sane(name: &str, result: f64, args: &[f64]) -> DfResult<f64> {
    if result.is_finite() || args.iter().any(|arg| !arg.is_finite()) {
        return Ok(one_zero(result));
    }
    if result.is_nan() || args.contains(&0.0) {
        return Err(wrong_value(format!("{name} of {} is not defined", args.first().copied().unwrap_or_default())));
    }
    Err(out_of_range())
}

fn map(args: &[ArrayRef], name: &str, compute: fn(f64) -> f64) -> DfResult<ArrayRef> {
    let values = args[0].as_primitive::<Float64Type>();
    let values: Float64Array = values.try_unary(|value| sane(name, compute(value), &[value]))?;
    Ok(Arc::new(values))
}

fn map2(args: &[ArrayRef], name: &str, compute: fn(f64, f64) -> f64) -> DfResult<ArrayRef> {
    let pairs = args[0].as_primitive::<Float64Type>().iter().zip(args[1].as_primitive::<Float64Type>());
    let values = pairs.map(|pair| match pair {
        (Some(left), Some(right)) => sane(name, compute(left, right), &[left, right]).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(values.collect::<DfResult<Float64Array>>()?))
}

fn power(base: f64, exponent: f64) -> f64 {
    base.powf(exponent)
}

/// `log(x)` is to base 10, `log(b, x)` to base b.
fn log(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    match args.len() {
        1 => map(args, "log", f64::log10),
        _ => map2(args, "log", |base, value| value.ln() / base.ln()),
    }
}

fn modulo(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(datafusion::arrow::compute::kernels::numeric::rem(&args[0], &args[1])?)
}

fn pi(_: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    Ok(Arc::new(Float64Array::from_value(std::f64::consts::PI, call.number_rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_exactly() {
        assert_eq!(Rounding::Half.divided(25, 10), 3);
        assert_eq!(Rounding::Half.divided(-25, 10), -3);
        assert_eq!(Rounding::Half.divided(24, 10), 2);
        assert_eq!(Rounding::Up.divided(-15, 10), -1);
        assert_eq!(Rounding::Up.divided(11, 10), 2);
        assert_eq!(Rounding::Down.divided(-11, 10), -2);
        assert_eq!(Rounding::Cut.divided(-19, 10), -1);
    }
}
