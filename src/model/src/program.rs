//! Expressions that are part of a table's definition: CHECK constraints and defaults that are computed for each row.
//!
//! An expression is kept as the steps of a stack machine, so that it travels in the catalog and is evaluated anywhere,
//! the tx thread included, without a query engine, recursion or unbounded work. The SQL room compiles it and has checked
//! its types; here are the meanings, which are SQL's: NULL is unknown, integers do not wrap around, decimals are exact.

use crate::decimal::Decimal;
use crate::error::{Code, Error, Result};
use crate::temporal::MICROS_PER_DAY;
use crate::types::ColumnType;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// The longest program.
pub const STEPS_MAX: usize = 2_000;

/// An expression, and how it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    pub text: String,
    pub steps: Vec<Step>,
}

/// One step: takes its operands off the stack, the last one first, and leaves its value there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// The row's column at this position.
    Column(usize),
    Constant(Value),
    /// When the statement began.
    Now,
    /// A random UUID.
    NewUuid,
    Cast(ColumnType),
    Negate,
    Not,
    IsNull,
    /// `IS TRUE` and `IS FALSE`.
    IsTruth(bool),
    Characters,
    Octets,
    Lower,
    Upper,
    Trim,
    Absolute,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Concatenate,
    Compare(Comparison),
    IsDistinct,
    And,
    Or,
    Like,
    Coalesce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a program reads while it runs.
pub trait Surroundings {
    /// The value of a column of the row.
    fn column(&self, position: usize) -> Result<Value>;

    /// Microseconds since 1970-01-01 UTC.
    fn now(&self) -> Result<i64> {
        Err(Error::internal("a condition depends on the time"))
    }

    fn new_uuid(&self) -> Result<[u8; 16]> {
        Err(Error::internal("a condition depends on chance"))
    }
}

impl Program {
    /// The columns that the program reads.
    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Column(position) => Some(*position),
            _ => None,
        })
    }

    /// Whether the value is the same for every row and at every time.
    pub fn is_constant(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, Step::Column(_) | Step::Now | Step::NewUuid))
    }

    /// The value of the expression.
    ///
    /// Errors: `ValueOutOfRange`, `DivisionByZero` and `WrongType`; `Internal` for steps that are no program.
    pub fn evaluate(&self, around: &dyn Surroundings) -> Result<Value> {
        // Errors are values until something needs them: `a <> 0 AND 1 / a > 2` is false for 0.
        let mut stack: Vec<Result<Value>> = Vec::with_capacity(8);
        for step in &self.steps {
            let value = match step {
                Step::Column(position) => around.column(*position),
                Step::Constant(value) => Ok(value.clone()),
                Step::Now => around.now().map(Value::TimestampTz),
                Step::NewUuid => around.new_uuid().map(Value::Uuid),
                step if step.is_binary() => {
                    let (right, left) = (pop(&mut stack)?, pop(&mut stack)?);
                    binary(step, left, right)
                }
                step => pop(&mut stack)?.and_then(|operand| unary(step, operand)),
            };
            stack.push(value);
        }
        let value = pop(&mut stack)?;
        if stack.is_empty() { value } else { Err(broken()) }
    }
}

impl Step {
    fn is_binary(&self) -> bool {
        use Step::*;
        matches!(
            self,
            Add | Subtract
                | Multiply
                | Divide
                | Remainder
                | Concatenate
                | Compare(_)
                | IsDistinct
                | And
                | Or
                | Like
                | Coalesce
        )
    }
}

fn pop(stack: &mut Vec<Result<Value>>) -> Result<Result<Value>> {
    stack.pop().ok_or_else(broken)
}

fn broken() -> Error {
    Error::internal("an expression of a table's definition is broken")
}

fn unary(step: &Step, value: Value) -> Result<Value> {
    match (step, value) {
        (Step::IsNull, value) => Ok(Value::Boolean(value.is_null())),
        (Step::IsTruth(wanted), value) => Ok(Value::Boolean(value == Value::Boolean(*wanted))),
        (_, Value::Null) => Ok(Value::Null),
        (Step::Cast(ty), value) => value.coerce(*ty),
        (Step::Not, Value::Boolean(b)) => Ok(Value::Boolean(!b)),
        (Step::Negate, value) => arithmetic(&Step::Subtract, Value::Integer(0), value),
        (Step::Absolute, value) if is_negative(&value) => arithmetic(&Step::Subtract, Value::Integer(0), value),
        (Step::Absolute, value) => Ok(value),
        (Step::Characters, Value::Text(text)) => Ok(Value::Integer(text.chars().count() as i64)),
        (Step::Octets, Value::Text(text)) => Ok(Value::Integer(text.len() as i64)),
        (Step::Octets | Step::Characters, Value::Bytes(bytes)) => Ok(Value::Integer(bytes.len() as i64)),
        (Step::Lower, Value::Text(text)) => Ok(Value::Text(text.to_lowercase())),
        (Step::Upper, Value::Text(text)) => Ok(Value::Text(text.to_uppercase())),
        (Step::Trim, Value::Text(text)) => Ok(Value::Text(text.trim_matches(' ').to_owned())),
        (_, value) => Err(unfit(step, &value)),
    }
}

fn binary(step: &Step, left: Result<Value>, right: Result<Value>) -> Result<Value> {
    match step {
        Step::And => logical(left, right, false),
        Step::Or => logical(left, right, true),
        Step::Coalesce => match left? {
            Value::Null => right,
            value => Ok(value),
        },
        Step::IsDistinct => Ok(Value::Boolean(match (left?, right?) {
            (Value::Null, Value::Null) => false,
            (Value::Null, _) | (_, Value::Null) => true,
            (left, right) => order(&left, &right)? != Some(Ordering::Equal),
        })),
        step => match (left?, right?) {
            (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
            (left, right) => known(step, left, right),
        },
    }
}

/// AND (`decisive` false) and OR (`decisive` true): one decisive operand is enough, whatever the other is.
fn logical(left: Result<Value>, right: Result<Value>, decisive: bool) -> Result<Value> {
    let decides = |value: &Result<Value>| matches!(value, Ok(Value::Boolean(b)) if *b == decisive);
    if decides(&left) || decides(&right) {
        return Ok(Value::Boolean(decisive));
    }
    match (left?, right?) {
        (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
        (Value::Boolean(_), Value::Boolean(_)) => Ok(Value::Boolean(!decisive)),
        (left, _) => Err(unfit(if decisive { &Step::Or } else { &Step::And }, &left)),
    }
}

fn known(step: &Step, left: Value, right: Value) -> Result<Value> {
    match (step, left, right) {
        (Step::Compare(comparison), left, right) => {
            Ok(order(&left, &right)?.map_or(Value::Null, |order| Value::Boolean(comparison.holds(order))))
        }
        (Step::Concatenate, Value::Text(left), Value::Text(right)) => Ok(Value::Text(left + &right)),
        (Step::Like, Value::Text(text), Value::Text(pattern)) => Ok(Value::Boolean(is_like(&text, &pattern))),
        (step, left, right) => arithmetic(step, left, right),
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// The order of two values; None where there is none, for NaN.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>> {
    use Value::*;
    Ok(match (left, right) {
        (Boolean(a), Boolean(b)) => Some(a.cmp(b)),
        (Integer(a), Integer(b)) => Some(a.cmp(b)),
        (Integer(a), Decimal(b)) => Some(crate::Decimal::from(*a).cmp(b)),
        (Decimal(a), Integer(b)) => Some(a.cmp(&crate::Decimal::from(*b))),
        (Decimal(a), Decimal(b)) => Some(a.cmp(b)),
        (Double(_), Integer(_) | Decimal(_) | Double(_)) | (Integer(_) | Decimal(_), Double(_)) => {
            as_double(left).zip(as_double(right)).and_then(|(a, b)| a.partial_cmp(&b))
        }
        (Text(a), Text(b)) => Some(a.cmp(b)),
        (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
        (Uuid(a), Uuid(b)) => Some(a.cmp(b)),
        (Date(a), Date(b)) | (Time(a), Time(b)) => Some(a.cmp(b)),
        (Timestamp(a) | TimestampTz(a), Timestamp(b) | TimestampTz(b)) => Some(a.cmp(b)),
        (Date(a), Timestamp(b) | TimestampTz(b)) => Some((a * MICROS_PER_DAY).cmp(b)),
        (Timestamp(a) | TimestampTz(a), Date(b)) => Some(a.cmp(&(b * MICROS_PER_DAY))),
        _ => return Err(unfit(&Step::Compare(Comparison::Equal), right)),
    })
}

fn as_double(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(i) => Some(*i as f64),
        Value::Decimal(d) => Some(d.to_f64()),
        Value::Double(d) => Some(*d),
        _ => None,
    }
}

fn is_negative(value: &Value) -> bool {
    match value {
        Value::Integer(i) => *i < 0,
        Value::Decimal(d) => d.unscaled < 0,
        Value::Double(d) => *d < 0.0,
        _ => false,
    }
}

fn arithmetic(step: &Step, left: Value, right: Value) -> Result<Value> {
    match (left, right) {
        (Value::Integer(a), Value::Integer(b)) => integers(step, a, b).map(Value::Integer),
        (Value::Date(day), Value::Integer(days)) if matches!(step, Step::Add | Step::Subtract) => {
            let moved = integers(step, day, days)?;
            Value::Text(crate::temporal::format_date(moved)).coerce(ColumnType::Date)
        }
        (Value::Date(a), Value::Date(b)) if *step == Step::Subtract => Ok(Value::Integer(a - b)),
        (Value::Integer(a), Value::Decimal(b)) => decimals(step, Decimal::from(a), b).map(Value::Decimal),
        (Value::Decimal(a), Value::Integer(b)) => decimals(step, a, Decimal::from(b)).map(Value::Decimal),
        (Value::Decimal(a), Value::Decimal(b)) => decimals(step, a, b).map(Value::Decimal),
        (left, right) => match (as_double(&left), as_double(&right)) {
            (Some(a), Some(b)) => doubles(step, a, b).map(Value::Double),
            _ => Err(unfit(step, &right)),
        },
    }
}

fn integers(step: &Step, a: i64, b: i64) -> Result<i64> {
    let result = match step {
        Step::Add => a.checked_add(b),
        Step::Subtract => a.checked_sub(b),
        Step::Multiply => a.checked_mul(b),
        Step::Divide | Step::Remainder if b == 0 => return Err(division_by_zero()),
        Step::Divide => a.checked_div(b),
        // The smallest integer modulo -1 is 0, though the machine's division overflows.
        Step::Remainder => Some(a.wrapping_rem(b)),
        _ => return Err(broken()),
    };
    result.ok_or_else(|| Error::new(Code::ValueOutOfRange, format!("{a} and {b}: the result does not fit bigint")))
}

fn decimals(step: &Step, a: Decimal, b: Decimal) -> Result<Decimal> {
    let out_of_range =
        || Error::new(Code::ValueOutOfRange, format!("{a} and {b}: the result has too many digits for a decimal"));
    let scale = a.scale.max(b.scale);
    let same_scale = || a.rescaled(scale).zip(b.rescaled(scale)).ok_or_else(out_of_range);
    let (unscaled, scale) = match step {
        Step::Add => same_scale().map(|(a, b)| (a.unscaled.checked_add(b.unscaled), scale))?,
        Step::Subtract => same_scale().map(|(a, b)| (a.unscaled.checked_sub(b.unscaled), scale))?,
        Step::Multiply => (a.unscaled.checked_mul(b.unscaled), a.scale.saturating_add(b.scale)),
        Step::Remainder if b.unscaled == 0 => return Err(division_by_zero()),
        Step::Remainder => same_scale().map(|(a, b)| (a.unscaled.checked_rem(b.unscaled), scale))?,
        _ => return Err(unfit(step, &Value::Decimal(b))),
    };
    let unscaled = unscaled.filter(|_| usize::from(scale) <= crate::decimal::DIGITS_MAX).ok_or_else(out_of_range)?;
    // Checks the digits.
    Decimal { unscaled, scale }.rescaled(scale).ok_or_else(out_of_range)
}

fn doubles(step: &Step, a: f64, b: f64) -> Result<f64> {
    Ok(match step {
        Step::Add => a + b,
        Step::Subtract => a - b,
        Step::Multiply => a * b,
        Step::Divide | Step::Remainder if b == 0.0 => return Err(division_by_zero()),
        Step::Divide => a / b,
        Step::Remainder => a % b,
        _ => return Err(broken()),
    })
}

fn division_by_zero() -> Error {
    Error::new(Code::DivisionByZero, "division by zero")
}

fn unfit(step: &Step, value: &Value) -> Error {
    let name = match step {
        Step::Compare(_) => "a comparison".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    Error::new(Code::WrongType, format!("{name} does not apply to {value}, which is {}", value.kind()))
}

/// LIKE with `%`, `_` and the escape character `\`. Linear but for patterns of many `%`, where it is their product.
fn is_like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = pattern_of(pattern);
    let (mut t, mut p) = (0, 0);
    // Where to go on when a guess was wrong: behind the last `%`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(Part::Many) => {
                retry = Some((t, p));
                p += 1;
                continue;
            }
            Some(Part::One) if t < text.len() => {
                (t, p) = (t + 1, p + 1);
                continue;
            }
            Some(Part::Char(c)) if text.get(t) == Some(c) => {
                (t, p) = (t + 1, p + 1);
                continue;
            }
            None if t == text.len() => return true,
            _ => {}
        }
        match retry {
            Some((from, many)) if from < text.len() => {
                retry = Some((from + 1, many));
                (t, p) = (from + 1, many + 1);
            }
            _ => return false,
        }
    }
}

enum Part {
    Char(char),
    One,
    Many,
}

fn pattern_of(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '%' => Part::Many,
            '_' => Part::One,
            '\\' => Part::Char(chars.next().unwrap_or('\\')),
            c => Part::Char(c),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Row(Vec<Value>);

    impl Surroundings for Row {
        fn column(&self, position: usize) -> Result<Value> {
            self.0.get(position).cloned().ok_or_else(broken)
        }
    }

    fn run(steps: Vec<Step>, row: Vec<Value>) -> Result<Value, Code> {
        Program { text: String::new(), steps }.evaluate(&Row(row)).map_err(|error| error.code)
    }

    fn constant(value: impl Into<i64>) -> Step {
        Step::Constant(Value::Integer(value.into()))
    }

    #[test]
    fn unknown_is_neither_true_nor_false() {
        let truth = [Value::Boolean(true), Value::Boolean(false), Value::Null];
        for a in &truth {
            for b in &truth {
                let both = |step: Step| run(vec![Step::Column(0), Step::Column(1), step], vec![a.clone(), b.clone()]);
                let either = |wanted: bool| [a, b].contains(&&Value::Boolean(wanted));
                let and = if either(false) {
                    Value::Boolean(false)
                } else if a == b {
                    a.clone()
                } else {
                    Value::Null
                };
                let or = if either(true) {
                    Value::Boolean(true)
                } else if a == b {
                    a.clone()
                } else {
                    Value::Null
                };
                assert_eq!(both(Step::And), Ok(and), "{a} AND {b}");
                assert_eq!(both(Step::Or), Ok(or), "{a} OR {b}");
            }
        }
    }

    #[test]
    fn a_guard_keeps_an_error_from_mattering() {
        // a <> 0 AND 10 / a > 2
        let steps = |a: i64| {
            let not_zero = [Step::Column(0), constant(0), Step::Compare(Comparison::NotEqual)];
            let large = [constant(10), Step::Column(0), Step::Divide, constant(2), Step::Compare(Comparison::Greater)];
            let steps = not_zero.into_iter().chain(large).chain([Step::And]).collect();
            run(steps, vec![Value::Integer(a)])
        };
        assert_eq!(steps(0), Ok(Value::Boolean(false)));
        assert_eq!(steps(3), Ok(Value::Boolean(true)));
        assert_eq!(run(vec![constant(1), constant(0), Step::Divide], vec![]), Err(Code::DivisionByZero));
    }

    #[test]
    fn numbers_are_exact_and_bounded() {
        let both = |a: Value, step: Step, b: Value| run(vec![Step::Column(0), Step::Column(1), step], vec![a, b]);
        let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
        assert_eq!(both(decimal("0.1"), Step::Add, decimal("0.20")).unwrap().to_string(), "0.30");
        assert_eq!(both(decimal("1.5"), Step::Multiply, Value::Integer(3)).unwrap().to_string(), "4.5");
        assert_eq!(both(Value::Integer(i64::MAX), Step::Add, Value::Integer(1)), Err(Code::ValueOutOfRange));
        assert_eq!(both(Value::Integer(i64::MIN), Step::Remainder, Value::Integer(-1)), Ok(Value::Integer(0)));
        assert_eq!(both(Value::Integer(i64::MIN), Step::Divide, Value::Integer(-1)), Err(Code::ValueOutOfRange));
        assert_eq!(
            both(Value::Integer(1), Step::Compare(Comparison::Equal), decimal("1.00")),
            Ok(Value::Boolean(true))
        );
        assert_eq!(both(Value::Date(10), Step::Add, Value::Integer(5)), Ok(Value::Date(15)));
        assert_eq!(both(Value::Text("a".into()), Step::Add, Value::Integer(5)), Err(Code::WrongType));
    }

    #[test]
    fn like_finds_patterns() {
        for (text, pattern, wanted) in [
            ("", "", true),
            ("", "%", true),
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "_b_", true),
            ("abc", "_b", false),
            ("aXbXc", "a%b%c", true),
            ("aab", "%ab", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("été", "_t_", true),
        ] {
            assert_eq!(is_like(text, pattern), wanted, "{text} LIKE {pattern}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for steps in [vec![], vec![Step::And], vec![constant(1), constant(2)], vec![Step::Column(3)]] {
            assert_eq!(run(steps.clone(), vec![]), Err(Code::Internal), "{steps:?}");
        }
        assert_eq!(run(vec![Step::Now], vec![]), Err(Code::Internal));
    }

    proptest! {
        #[test]
        fn like_agrees_with_its_definition(text in "[ab]{0,6}", pattern in "[ab%_]{0,6}") {
            fn slow(text: &[char], pattern: &[char]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, _) => text.is_empty(),
                    (Some(('%', rest)), _) => (0..=text.len()).any(|at| slow(&text[at..], rest)),
                    (Some((p, rest)), Some((t, others))) => (*p == '_' || p == t) && slow(others, rest),
                    (Some(_), None) => false,
                }
            }
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            prop_assert_eq!(is_like(&text, &pattern), slow(&chars(&text), &chars(&pattern)));
        }
    }
}
