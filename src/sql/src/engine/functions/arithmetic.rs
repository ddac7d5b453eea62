//! `+`, `-`, `*`, `/` that fail where the engine's own would wrap around, give infinity, or cut digits off.
//!
//! The planner asks here first for each operator; what is not of these types goes on as before. The functions keep the
//! operator's spelling in column names, in parentheses.
//!
//! | operands                    | result                                     |
//! |-----------------------------|--------------------------------------------|
//! | integers, `+ - *`           | the wider type; what does not fit is an error |
//! | a float and any number      | float; infinity out of finite numbers is an error, and so is division by zero |
//! | decimals, `/`               | at least 16 digits after the point, rounded half away from zero |

use super::{out_of_range, wrong_types};
use crate::engine::errors::wrap;
use crate::engine::types::one_zero;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, PrimitiveArray};
use datafusion::arrow::compute::kernels::numeric::{add, div, mul, sub};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, i256};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::other::get_coerce_type_for_case_expression;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, binary_expr, cast, lit,
};
use datafusion::physical_expr_common::datum::apply;
use datafusion::scalar::ScalarValue;
use model::{Code, Error};
use sqlparser::ast::BinaryOperator;
use std::sync::{Arc, LazyLock};

/// Digits after the point that a quotient of decimals has at least.
const QUOTIENT_SCALE_MIN: i8 = 16;
const PRECISION_MAX: u8 = 38;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Integer,
    Float,
    Decimal,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide];

    fn of(op: &BinaryOperator) -> Option<Self> {
        match op {
            BinaryOperator::Plus => Some(Operation::Add),
            BinaryOperator::Minus => Some(Operation::Subtract),
            BinaryOperator::Multiply => Some(Operation::Multiply),
            BinaryOperator::Divide => Some(Operation::Divide),
            _ => None,
        }
    }

    fn operator(self) -> Operator {
        match self {
            Operation::Add => Operator::Plus,
            Operation::Subtract => Operator::Minus,
            Operation::Multiply => Operator::Multiply,
            Operation::Divide => Operator::Divide,
        }
    }

    fn sign(self) -> char {
        match self {
            Operation::Add => '+',
            Operation::Subtract => '-',
            Operation::Multiply => '*',
            Operation::Divide => '/',
        }
    }
}

/// One operation on one kind of numbers, as a function of the engine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    kind: Kind,
    operation: Operation,
    signature: Signature,
}

/// What there is: the engine's division of integers is right as it is.
const ALL: [(Kind, Operation); 8] = [
    (Kind::Integer, Operation::Add),
    (Kind::Integer, Operation::Subtract),
    (Kind::Integer, Operation::Multiply),
    (Kind::Float, Operation::Add),
    (Kind::Float, Operation::Subtract),
    (Kind::Float, Operation::Multiply),
    (Kind::Float, Operation::Divide),
    (Kind::Decimal, Operation::Divide),
];

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let make = |(kind, operation)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Checked { kind, operation, signature }))
    };
    ALL.into_iter().map(make).collect()
});

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.clone()
}

fn function(kind: Kind, operation: Operation) -> Option<&'static Arc<ScalarUDF>> {
    ALL.iter().position(|known| *known == (kind, operation)).and_then(|at| FUNCTIONS.get(at))
}

fn width(ty: &DataType) -> Option<u8> {
    match ty {
        DataType::Null => Some(0),
        DataType::Int8 => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(4),
        DataType::Int64 => Some(8),
        _ => None,
    }
}

/// The wider of two signed integer types; None for other types, and for two NULLs.
fn wider(left: &DataType, right: &DataType) -> Option<DataType> {
    let wider = if width(left)? >= width(right)? { left } else { right };
    (*wider != DataType::Null).then(|| wider.clone())
}

fn is_float(ty: &DataType) -> bool {
    matches!(ty, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

fn is_number(ty: &DataType) -> bool {
    ty.is_numeric() || ty.is_null()
}

/// A number as a decimal.
fn as_decimal(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Decimal128(..) => ty.clone(),
        DataType::Null => DataType::Decimal128(1, 0),
        DataType::Int8 => DataType::Decimal128(3, 0),
        DataType::Int16 => DataType::Decimal128(5, 0),
        DataType::Int32 => DataType::Decimal128(10, 0),
        DataType::Int64 => DataType::Decimal128(19, 0),
        DataType::UInt64 => DataType::Decimal128(20, 0),
        _ => return None,
    })
}

/// How numbers of these types are computed with; None where the engine does it well.
fn kind_of(operation: Operation, left: &DataType, right: &DataType) -> Option<Kind> {
    if wider(left, right).is_some() {
        return function(Kind::Integer, operation).map(|_| Kind::Integer);
    }
    if (is_float(left) && is_number(right)) || (is_float(right) && is_number(left)) {
        return Some(Kind::Float);
    }
    let is_decimal = |ty: &DataType| matches!(ty, DataType::Decimal128(..));
    let decimal = (is_decimal(left) || is_decimal(right)) && as_decimal(left).is_some() && as_decimal(right).is_some();
    (decimal && operation == Operation::Divide).then_some(Kind::Decimal)
}

pub fn quotient_scale(left: i8, right: i8) -> i8 {
    left.max(right).max(QUOTIENT_SCALE_MIN)
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match (self.kind, self.operation) {
            (Kind::Integer, Operation::Add) => "integer_add",
            (Kind::Integer, Operation::Subtract) => "integer_subtract",
            (Kind::Integer, _) => "integer_multiply",
            (Kind::Float, Operation::Add) => "float_add",
            (Kind::Float, Operation::Subtract) => "float_subtract",
            (Kind::Float, Operation::Multiply) => "float_multiply",
            (Kind::Float, Operation::Divide) => "float_divide",
            (Kind::Decimal, _) => "decimal_divide",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// In parentheses, whatever is inside: the engine replaces parts by columns that have the part's name as an alias, and the
    /// name of the whole must not change by that.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(format!("({})", names.join(&format!(" {} ", self.operation.sign()))))
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [left, right] = types else { return wrong_types(self.name()) };
        let same = |ty: DataType| vec![ty.clone(), ty];
        Ok(match self.kind {
            Kind::Integer => same(wider(left, right).unwrap_or(DataType::Int64)),
            Kind::Float => {
                let is_single = |ty: &DataType| matches!(ty, DataType::Float32 | DataType::Null);
                same(if is_single(left) && is_single(right) { DataType::Float32 } else { DataType::Float64 })
            }
            Kind::Decimal => match (as_decimal(left), as_decimal(right)) {
                (Some(left), Some(right)) => vec![left, right],
                _ => return wrong_types(self.name()),
            },
        })
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match (self.kind, types) {
            (Kind::Decimal, [DataType::Decimal128(_, left), DataType::Decimal128(_, right)]) => {
                Ok(DataType::Decimal128(PRECISION_MAX, quotient_scale(*left, *right)))
            }
            (Kind::Decimal, _) => wrong_types(self.name()),
            _ => Ok(types.first().cloned().unwrap_or(DataType::Int64)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return wrong_types(self.name()) };
        if self.kind == Kind::Decimal {
            return divided(left, right, args.number_rows, args.return_type());
        }
        let computed = match self.operation {
            Operation::Add => apply(left, right, add),
            Operation::Subtract => apply(left, right, sub),
            Operation::Multiply => apply(left, right, mul),
            Operation::Divide => apply(left, right, div),
        }?;
        if self.kind == Kind::Float {
            check_floats(self.operation, [left, right], &computed, args.number_rows)?;
            if matches!(self.operation, Operation::Multiply | Operation::Divide) {
                return with_one_zero(computed);
            }
        }
        Ok(computed)
    }
}

/// Products and quotients without negative zeros; sums have none of their own.
fn with_one_zero(computed: ColumnarValue) -> DfResult<ColumnarValue> {
    let array = match computed {
        ColumnarValue::Array(array) => array,
        ColumnarValue::Scalar(ScalarValue::Float64(value)) => {
            return Ok(ColumnarValue::Scalar(ScalarValue::Float64(value.map(one_zero))));
        }
        ColumnarValue::Scalar(ScalarValue::Float32(value)) => {
            return Ok(ColumnarValue::Scalar(ScalarValue::Float32(value.map(|value| value + 0.0))));
        }
        other => return Ok(other),
    };
    Ok(ColumnarValue::Array(match array.data_type() {
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0)),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(one_zero)),
        _ => array,
    }))
}

fn division_by_zero() -> datafusion::error::DataFusionError {
    wrap(Error::new(Code::DivisionByZero, "division by zero"))
}

fn check_floats(
    operation: Operation,
    operands: [&ColumnarValue; 2],
    computed: &ColumnarValue,
    rows: usize,
) -> DfResult<()> {
    let [left, right] = operands.map(|operand| operand.to_array(rows));
    let (left, right, computed) = (left?, right?, computed.to_array(rows)?);
    match computed.data_type() {
        DataType::Float32 => {
            check_float::<Float32Type>(operation, &left, &right, &computed, |f| (f == 0.0, f.is_finite()))
        }
        _ => check_float::<Float64Type>(operation, &left, &right, &computed, |f| (f == 0.0, f.is_finite())),
    }
}

fn check_float<T: ArrowPrimitiveType>(
    operation: Operation,
    left: &ArrayRef,
    right: &ArrayRef,
    computed: &ArrayRef,
    facts: impl Fn(T::Native) -> (bool, bool),
) -> DfResult<()> {
    let [left, right, computed]: [&PrimitiveArray<T>; 3] = [left, right, computed].map(|array| array.as_primitive());
    // One pass over plain values tells whether there is anything to look at.
    if computed.values().iter().all(|value| facts(*value).1) {
        return Ok(());
    }
    for row in (0..computed.len()).filter(|row| computed.is_valid(*row)) {
        let (divisor_is_zero, right_is_finite) = facts(right.value(row));
        if operation == Operation::Divide && divisor_is_zero {
            return Err(division_by_zero());
        }
        if !facts(computed.value(row)).1 && right_is_finite && facts(left.value(row)).1 {
            return Err(out_of_range());
        }
    }
    Ok(())
}

fn divided(left: &ColumnarValue, right: &ColumnarValue, rows: usize, ty: &DataType) -> DfResult<ColumnarValue> {
    let is_constant = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { rows };
    let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let DataType::Decimal128(precision, scale) = ty else { return wrong_types("decimal_divide") };
    // (l / 10^ls) / (r / 10^rs) at scale s is l * 10^(s - ls + rs) / r; s is at least ls.
    let shift = scale.saturating_sub(left.scale()).saturating_add(right.scale()).unsigned_abs();
    let values = (0..left.len()).map(|row| match left.is_valid(row) && right.is_valid(row) {
        true => quotient(left.value(row), right.value(row), shift).map(Some),
        false => Ok(None),
    });
    let values = values.collect::<DfResult<Decimal128Array>>()?.with_precision_and_scale(*precision, *scale)?;
    if is_constant {
        return ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar);
    }
    Ok(ColumnarValue::Array(Arc::new(values)))
}

/// `left * 10^shift / right`, rounded half away from zero.
pub fn quotient(left: i128, right: i128, shift: u8) -> DfResult<i128> {
    if right == 0 {
        return Err(division_by_zero());
    }
    if let Some(scaled) = 10_i128.checked_pow(shift.into()).and_then(|power| left.checked_mul(power)) {
        let (whole, rest) = (scaled.wrapping_div(right), scaled.wrapping_rem(right));
        let up = rest.unsigned_abs() >= right.unsigned_abs().div_ceil(2) && rest != 0;
        let away = if (scaled < 0) == (right < 0) { 1 } else { -1 };
        return fits(if up { whole.checked_add(away) } else { Some(whole) });
    }
    let wide = |value: i128| i256::from_i128(value);
    let scaled = (0..shift).try_fold(wide(left), |value, _| value.checked_mul(wide(10))).ok_or_else(out_of_range)?;
    let (whole, rest) = (scaled.wrapping_div(wide(right)), scaled.wrapping_rem(wide(right)));
    let twice = rest.wrapping_abs().wrapping_mul(wide(2));
    let away = if (scaled < i256::ZERO) == (right < 0) { i256::ONE } else { i256::MINUS_ONE };
    let rounded = if twice >= wide(right).wrapping_abs() { whole.wrapping_add(away) } else { whole };
    fits(rounded.to_i128())
}

fn fits(value: Option<i128>) -> DfResult<i128> {
    let max = 10_u128.pow(PRECISION_MAX.into());
    value.filter(|value| value.unsigned_abs() < max).ok_or_else(out_of_range)
}

/// The expression with all branches of each CASE of one type: until then, the engine says that a CASE has the type of its
/// first branch.
fn settled(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    Ok(expr.transform_up(|part| settled_case(part, schema))?.data)
}

/// A CASE whose branches are of one type.
pub fn settled_case(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Expr::Case(mut case) = expr else { return Ok(Transformed::no(expr)) };
    let results = case.when_then_expr.iter().map(|(_, then)| then);
    let types = results.map(|then| then.get_type(schema)).collect::<DfResult<Vec<_>>>();
    let last = case.else_expr.as_ref().map(|otherwise| otherwise.get_type(schema)).transpose();
    let (Ok(types), Ok(last)) = (types, last) else { return Ok(Transformed::no(Expr::Case(case))) };
    let is_double = |ty: &DataType| *ty == DataType::Float64;
    let common = match types.iter().chain(&last).any(is_double) && types.iter().chain(&last).all(DataType::is_numeric) {
        true => Some(DataType::Float64),
        false => get_coerce_type_for_case_expression(&types, last.as_ref()),
    };
    let Some(common) = common else {
        return Ok(Transformed::no(Expr::Case(case)));
    };
    if types.iter().chain(&last).all(|ty| *ty == common) {
        return Ok(Transformed::no(Expr::Case(case)));
    }
    let settle = |branch: &mut Box<Expr>| **branch = cast(branch.as_ref().clone(), common.clone());
    case.when_then_expr.iter_mut().for_each(|(_, then)| settle(then));
    case.else_expr.iter_mut().for_each(settle);
    Ok(Transformed::yes(Expr::Case(case)))
}

/// An operation on numbers as it is computed for the types that they have now: it was planned for the types that columns of
/// derived tables seemed to have.
pub fn chosen_again(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let (operation, left, right) = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            match Operation::ALL.into_iter().find(|o| o.operator() == *op) {
                Some(operation) => (operation, &**left, &**right),
                None => return Ok(Transformed::no(expr)),
            }
        }
        Expr::ScalarFunction(call) => {
            let known = ALL.into_iter().zip(&*FUNCTIONS).find(|(_, function)| **function == call.func);
            match (known, &call.args[..]) {
                (Some(((_, operation), _)), [left, right]) => (operation, left, right),
                _ => return Ok(Transformed::no(expr)),
            }
        }
        _ => return Ok(Transformed::no(expr)),
    };
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(Transformed::no(expr)) };
    if !is_number(&l) || !is_number(&r) {
        return Ok(Transformed::no(expr));
    }
    let again = match kind_of(operation, &l, &r).and_then(|kind| function(kind, operation)) {
        Some(function) => function.call(vec![left.clone(), right.clone()]),
        None => binary_expr(left.clone(), operation.operator(), right.clone()),
    };
    Ok(if again == expr { Transformed::no(expr) } else { Transformed::yes(again) })
}

/// A literal is an INTEGER where it fits one: with an INTEGER it makes an INTEGER.
fn narrowed(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Expr::Literal(ScalarValue::Int32(Some(value)), metadata),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(value)), metadata),
        },
        other => other,
    }
}

/// A checked quotient of floats.
pub fn float_quotient(left: Expr, right: Expr) -> Expr {
    match function(Kind::Float, Operation::Divide) {
        Some(function) => function.call(vec![left, right]),
        None => left / right,
    }
}

/// `0 - value`, which fails for the least of integers, and makes no negative zero of floats.
pub fn negated(value: Expr, ty: &DataType) -> Option<Expr> {
    let (kind, zero) = match ty {
        DataType::Int16 => (Kind::Integer, lit(0_i16)),
        DataType::Int32 => (Kind::Integer, lit(0_i32)),
        DataType::Int64 => (Kind::Integer, lit(0_i64)),
        DataType::Float32 => (Kind::Float, lit(0_f32)),
        DataType::Float64 => (Kind::Float, lit(0_f64)),
        _ => return None,
    };
    function(kind, Operation::Subtract).map(|function| function.call(vec![zero, value]))
}

/// Chooses the functions above for operators on numbers, and those of `temporal` on dates and times.
#[derive(Debug)]
pub struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        if Operation::of(&expr.op).is_some() || expr.op == BinaryOperator::Modulo {
            (expr.left, expr.right) = (narrowed(expr.left), narrowed(expr.right));
        }
        // Only looked at: what stands in the statement twice has to stay the same.
        let type_of = |side: &Expr| settled(side.clone(), schema)?.get_type(schema);
        let (Ok(left), Ok(right)) = (type_of(&expr.left), type_of(&expr.right)) else {
            return Ok(PlannerResult::Original(expr));
        };
        if (Operation::of(&expr.op).is_some() || expr.op == BinaryOperator::Modulo)
            && let Some(typed) = super::quoted::typed(&expr, &left, &right)?
        {
            return self.plan_binary_op(typed, schema);
        }
        if let Some(operation) = Operation::of(&expr.op)
            && let Some(function) = kind_of(operation, &left, &right).and_then(|kind| function(kind, operation))
        {
            return Ok(PlannerResult::Planned(function.call(vec![expr.left, expr.right])));
        }
        if expr.op == BinaryOperator::Modulo
            && kind_of(Operation::Add, &left, &right) == Some(Kind::Float)
            && let Some(add) = function(Kind::Float, Operation::Add)
        {
            // A remainder may be the negative zero.
            let zero = if [&left, &right].contains(&&DataType::Float64) { lit(0_f64) } else { lit(0_f32) };
            let rest = binary_expr(expr.left, Operator::Modulo, expr.right);
            return Ok(PlannerResult::Planned(add.call(vec![rest, zero])));
        }
        if let Some(planned) = super::json::plan(&expr, &left, &right) {
            return Ok(PlannerResult::Planned(planned));
        }
        super::plan_temporal(expr, &left, &right)
    }

    fn plan_extract(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(super::date_part(args)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        let value = |left, right, shift| quotient(left, right, shift).unwrap();
        assert_eq!(value(1, 3, 4), 3333);
        assert_eq!(value(2, 3, 4), 6667);
        assert_eq!(value(-2, 3, 4), -6667);
        assert_eq!(value(1, -2, 0), -1);
        assert_eq!(value(5, 2, 0), 3);
        assert_eq!(value(-5, 2, 0), -3);
        assert_eq!(value(4, 3, 0), 1);
        assert_eq!(value(10_i128.pow(37), 3 * 10_i128.pow(20), 16), 333_333_333_333_333_333_333_333_333_333_333);
        assert!(quotient(1, 0, 2).is_err());
        assert!(quotient(10_i128.pow(37), 1, 16).is_err());
    }
}
