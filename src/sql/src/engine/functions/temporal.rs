//! Dates, times and intervals: the arithmetic that the standard and PostgreSQL have, EXTRACT, and formats.
//!
//! | operands                 | result    |
//! |--------------------------|-----------|
//! | date ± integer           | date, by days |
//! | date - date              | integer, days |
//! | date ± interval          | timestamp |
//! | date + time              | timestamp |
//! | timestamp - timestamp    | interval of days and time |
//! | time ± interval, time - time | time round the clock; interval |
//! | interval * or / number   | interval, fractions carried down |

use super::{Function, call, nullable, out_of_range, wrong_types, wrong_value};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, PrimitiveArray, StringViewArray,
};
use datafusion::arrow::compute::{DatePart, date_part as arrow_date_part};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float64Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, cast as cast_expr, lit};
use datafusion::scalar::ScalarValue;
use model::temporal::civil_from_days;
use sqlparser::ast::BinaryOperator;
use std::sync::{Arc, LazyLock};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const NANOS_PER_MICRO: i64 = 1_000;
const DAYS_PER_MONTH: i64 = 30;
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

macro_rules! function {
    ($constant:ident, $name:literal, [$($ty:expr),*], $returns:expr, $run:expr) => {
        static $constant: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
            Function::new($name, |_| Ok(vec![$($ty),*]), |_| Ok(nullable($returns)), $run).udf()
        });
    };
}

function!(ADD_DAYS, "date_add_days", [DataType::Date32, DataType::Int64], DataType::Date32, add_days);
function!(DAYS_BETWEEN, "date_days_between", [DataType::Date32, DataType::Date32], DataType::Int32, days_between);
function!(TIME_BETWEEN, "timestamp_between", [TIMESTAMP, TIMESTAMP], INTERVAL, time_between);
function!(CLOCK_BETWEEN, "time_between", [TIME, TIME], INTERVAL, clock_between);
function!(CLOCK_ADD, "time_add_interval", [TIME, INTERVAL], TIME, clock_add);
function!(AT_TIME, "date_at_time", [DataType::Date32, TIME], TIMESTAMP, at_time);
function!(SCALED, "interval_multiply", [INTERVAL, DataType::Float64], INTERVAL, scaled);
function!(LENGTH, "interval_length", [INTERVAL], DataType::Int64, length);

static PART: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Function::new("date_part", coerce_part, part_field, run_part).udf());

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut all: Vec<Arc<ScalarUDF>> =
        [&ADD_DAYS, &DAYS_BETWEEN, &TIME_BETWEEN, &CLOCK_BETWEEN, &CLOCK_ADD, &AT_TIME, &SCALED, &LENGTH, &PART]
            .into_iter()
            .map(|function| Arc::clone(function))
            .collect();
    all.push(Function::new("to_char", coerce_to_char, |_| Ok(nullable(DataType::Utf8View)), to_char).udf());
    all
}

/// `EXTRACT(part FROM value)`.
pub fn date_part(args: Vec<Expr>) -> Expr {
    call(PART.clone(), args)
}

/// Operators on dates and times.
pub fn plan(mut expr: RawBinaryExpr, left: &DataType, right: &DataType) -> DfResult<PlannerResult<RawBinaryExpr>> {
    use BinaryOperator as B;
    let is_timestamp = |ty: &DataType| matches!(ty, DataType::Timestamp(..));
    let is_date = |ty: &DataType| matches!(ty, DataType::Date32 | DataType::Date64);
    let is_time = |ty: &DataType| matches!(ty, DataType::Time32(_) | DataType::Time64(_));
    let is_interval = |ty: &DataType| matches!(ty, DataType::Interval(_) | DataType::Duration(_));
    let function =
        |function: &Arc<ScalarUDF>, left, right| Ok(PlannerResult::Planned(function.call(vec![left, right])));
    let negative = |expr| Expr::Negative(Box::new(expr));
    match expr.op {
        B::Plus if is_date(left) && right.is_integer() => function(&ADD_DAYS, expr.left, expr.right),
        B::Plus if left.is_integer() && is_date(right) => function(&ADD_DAYS, expr.right, expr.left),
        B::Minus if is_date(left) && right.is_integer() => function(&ADD_DAYS, expr.left, negative(expr.right)),
        B::Minus if is_date(left) && is_date(right) => function(&DAYS_BETWEEN, expr.left, expr.right),
        B::Minus if is_timestamp(left) && (is_timestamp(right) || is_date(right)) => {
            function(&TIME_BETWEEN, expr.left, expr.right)
        }
        B::Minus if is_date(left) && is_timestamp(right) => function(&TIME_BETWEEN, expr.left, expr.right),
        B::Minus if is_time(left) && is_time(right) => function(&CLOCK_BETWEEN, expr.left, expr.right),
        B::Plus if is_time(left) && is_interval(right) => function(&CLOCK_ADD, expr.left, expr.right),
        B::Plus if is_interval(left) && is_time(right) => function(&CLOCK_ADD, expr.right, expr.left),
        B::Minus if is_time(left) && is_interval(right) => {
            let backwards = SCALED.call(vec![expr.right, lit(-1.0_f64)]);
            function(&CLOCK_ADD, expr.left, backwards)
        }
        B::Plus if is_date(left) && is_time(right) => function(&AT_TIME, expr.left, expr.right),
        B::Plus if is_time(left) && is_date(right) => function(&AT_TIME, expr.right, expr.left),
        B::Plus | B::Minus if is_date(left) && is_interval(right) => {
            expr.left = cast_expr(expr.left, TIMESTAMP);
            Ok(PlannerResult::Original(expr))
        }
        B::Plus if is_interval(left) && (is_date(right) || is_timestamp(right)) => {
            let at = if is_date(right) { cast_expr(expr.right, TIMESTAMP) } else { expr.right };
            Ok(PlannerResult::Original(RawBinaryExpr { left: at, right: expr.left, ..expr }))
        }
        B::Multiply if is_interval(left) && right.is_numeric() => function(&SCALED, expr.left, expr.right),
        B::Multiply if left.is_numeric() && is_interval(right) => function(&SCALED, expr.right, expr.left),
        B::Divide if is_interval(left) && right.is_numeric() => {
            let [one, divisor] = [lit(1.0_f64), cast_expr(expr.right, DataType::Float64)];
            let inverse = super::arithmetic::float_quotient(one, divisor);
            function(&SCALED, expr.left, inverse)
        }
        B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq if is_interval(left) && is_interval(right) => {
            expr.left = LENGTH.call(vec![expr.left]);
            expr.right = LENGTH.call(vec![expr.right]);
            Ok(PlannerResult::Original(expr))
        }
        _ => Ok(PlannerResult::Original(expr)),
    }
}

/// Computes row by row over two columns; NULL where either is.
fn zipped<L: ArrowPrimitiveType, R: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    args: &[ArrayRef],
    compute: impl Fn(L::Native, R::Native) -> Option<O::Native>,
) -> DfResult<ArrayRef> {
    let (left, right) = (args[0].as_primitive::<L>(), args[1].as_primitive::<R>());
    let values = left.iter().zip(right.iter()).map(|pair| match pair {
        (Some(left), Some(right)) => compute(left, right).map(Some).ok_or_else(out_of_range),
        _ => Ok(None),
    });
    Ok(Arc::new(values.collect::<DfResult<PrimitiveArray<O>>>()?))
}

fn add_days(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<Date32Type, Int64Type, Date32Type>(args, |day, days| i32::try_from(i64::from(day).checked_add(days)?).ok())
}

fn days_between(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<Date32Type, Date32Type, Int32Type>(args, i32::checked_sub)
}

fn interval(months: i32, days: i64, micros: i64) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano::new(months, i32::try_from(days).ok()?, micros.checked_mul(NANOS_PER_MICRO)?))
}

/// Whole days and the rest, both of the same sign.
fn time_between(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<TimestampMicrosecondType, TimestampMicrosecondType, IntervalMonthDayNanoType>(args, |left, right| {
        let micros = left.checked_sub(right)?;
        interval(0, micros / MICROS_PER_DAY, micros % MICROS_PER_DAY)
    })
}

fn clock_between(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<Time64MicrosecondType, Time64MicrosecondType, IntervalMonthDayNanoType>(args, |left, right| {
        interval(0, 0, left.checked_sub(right)?)
    })
}

/// Round the clock: days and months of the interval do not count.
fn clock_add(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<Time64MicrosecondType, IntervalMonthDayNanoType, Time64MicrosecondType>(args, |time, by| {
        Some(time.checked_add(by.nanoseconds / NANOS_PER_MICRO)?.rem_euclid(MICROS_PER_DAY))
    })
}

fn at_time(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<Date32Type, Time64MicrosecondType, TimestampMicrosecondType>(args, |day, time| {
        i64::from(day).checked_mul(MICROS_PER_DAY)?.checked_add(time)
    })
}

/// Fractions of months become days, fractions of days become time.
fn scaled(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    zipped::<IntervalMonthDayNanoType, Float64Type, IntervalMonthDayNanoType>(args, |by, factor| {
        let in_range = |value: f64, max: f64| (value.is_finite() && value.abs() <= max).then_some(value);
        let months = in_range(f64::from(by.months) * factor, i32::MAX.into())?;
        // What is a whole number but for the rounding of doubles is taken as one.
        let days_of_months = (months.fract() * DAYS_PER_MONTH as f64 * 1e6).round() / 1e6;
        let days = in_range(f64::from(by.days) * factor + days_of_months.trunc(), i32::MAX.into())?;
        let day_fraction = days.fract() + days_of_months.fract();
        let micros = by.nanoseconds as f64 / NANOS_PER_MICRO as f64 * factor + day_fraction * MICROS_PER_DAY as f64;
        let micros = in_range(micros.round(), i64::MAX as f64 / 1e3)?;
        interval(months.trunc() as i32, days.trunc() as i64, micros as i64)
    })
}

/// In microseconds, with months of 30 days, as intervals are compared.
fn length(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let lengths = args[0].as_primitive::<IntervalMonthDayNanoType>().iter().map(|by| {
        let Some(by) = by else { return Ok(None) };
        let days = i64::from(by.months) * DAYS_PER_MONTH + i64::from(by.days);
        let micros = days.checked_mul(MICROS_PER_DAY).and_then(|m| m.checked_add(by.nanoseconds / NANOS_PER_MICRO));
        micros.map(Some).ok_or_else(out_of_range)
    });
    Ok(Arc::new(lengths.collect::<DfResult<Int64Array>>()?))
}

/// An interval as PostgreSQL prints it: `1 year 2 mons 3 days 04:05:06.5`.
pub fn interval_text(by: IntervalMonthDayNano) -> String {
    let (mut out, mut was_negative) = (String::new(), false);
    let mut unit = |value: i64, name: &str| {
        if value != 0 {
            let (blank, plus) =
                (if out.is_empty() { "" } else { " " }, if was_negative && value > 0 { "+" } else { "" });
            let plural = if value == 1 { "" } else { "s" };
            out.push_str(&format!("{blank}{plus}{value} {name}{plural}"));
            was_negative = value < 0;
        }
    };
    unit((by.months / 12).into(), "year");
    unit((by.months % 12).into(), "mon");
    unit(by.days.into(), "day");
    let micros = by.nanoseconds / NANOS_PER_MICRO;
    if micros != 0 || out.is_empty() {
        let blank = if out.is_empty() { "" } else { " " };
        let sign = if micros < 0 {
            "-"
        } else if was_negative {
            "+"
        } else {
            ""
        };
        let (whole, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        out.push_str(&format!("{blank}{sign}{hours:02}:{minutes:02}:{seconds:02}"));
        if fraction != 0 {
            out.push_str(format!(".{fraction:06}").trim_end_matches('0'));
        }
    }
    out
}

fn coerce_part(types: &[DataType]) -> DfResult<Vec<DataType>> {
    let [_, value] = types else { return wrong_types("date_part") };
    let value = match value {
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => TIMESTAMP,
        _ => return wrong_types("date_part"),
    };
    Ok(vec![DataType::Utf8, value])
}

/// A field of EXTRACT.
#[derive(Clone, Copy)]
enum Part {
    /// One that Arrow knows, and what is added to it.
    Arrow(DatePart, i32),
    /// Seconds with their fraction, times a power of ten.
    Seconds(u32),
    Epoch,
    /// Years divided by so many.
    Years(i32),
}

fn part_of(scalar: Option<&ScalarValue>) -> DfResult<Part> {
    let name = match scalar {
        Some(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name))) => name.to_ascii_lowercase(),
        _ => return wrong_types("date_part"),
    };
    Ok(match name.trim_matches(['\'', '"']) {
        "year" | "years" => Part::Arrow(DatePart::Year, 0),
        "isoyear" => Part::Arrow(DatePart::YearISO, 0),
        "quarter" => Part::Arrow(DatePart::Quarter, 0),
        "month" | "months" => Part::Arrow(DatePart::Month, 0),
        "week" => Part::Arrow(DatePart::Week, 0),
        "day" | "days" => Part::Arrow(DatePart::Day, 0),
        "doy" => Part::Arrow(DatePart::DayOfYear, 0),
        "dow" => Part::Arrow(DatePart::DayOfWeekSunday0, 0),
        "isodow" => Part::Arrow(DatePart::DayOfWeekMonday0, 1),
        "hour" | "hours" => Part::Arrow(DatePart::Hour, 0),
        "minute" | "minutes" => Part::Arrow(DatePart::Minute, 0),
        "second" | "seconds" => Part::Seconds(0),
        "millisecond" | "milliseconds" => Part::Seconds(3),
        "microsecond" | "microseconds" => Part::Seconds(6),
        "epoch" => Part::Epoch,
        "decade" => Part::Years(10),
        "century" => Part::Years(100),
        "millennium" => Part::Years(1000),
        other => return Err(wrong_value(format!("EXTRACT has no field \"{other}\""))),
    })
}

fn part_field(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    Ok(nullable(match part_of(args.scalar_arguments.first().copied().flatten())? {
        Part::Arrow(..) | Part::Years(_) => DataType::Int32,
        Part::Seconds(_) | Part::Epoch => DataType::Decimal128(38, 6),
    }))
}

fn run_part(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let datafusion::logical_expr::ColumnarValue::Scalar(name) = &call.args[0] else { return wrong_types("date_part") };
    let value = &args[1];
    match part_of(Some(name))? {
        Part::Arrow(part, add) => {
            let found = arrow_date_part(value, part)?;
            let found = found.as_primitive::<Int32Type>();
            Ok(Arc::new(found.unary::<_, Int32Type>(|n| n + add)))
        }
        Part::Years(by) => {
            let years = arrow_date_part(value, DatePart::Year)?;
            let years = years.as_primitive::<Int32Type>();
            let counted = |year: i32| match by {
                10 => year.div_euclid(10),
                by if year > 0 => (year + by - 1) / by,
                by => year / by - 1,
            };
            Ok(Arc::new(years.unary::<_, Int32Type>(counted)) as ArrayRef)
        }
        Part::Seconds(power) => {
            let by = i128::from(10_i64.pow(power));
            decimals(value, &|micros, _, _| i128::from(micros % (60 * MICROS_PER_SECOND)) * by, true)
        }
        Part::Epoch => decimals(
            value,
            &|micros, days, months| {
                // A year of an interval is 365.25 days, a month 30.
                let years = i128::from(months / 12) * 31_557_600 * i128::from(MICROS_PER_SECOND);
                let rest = i128::from(months % 12) * i128::from(DAYS_PER_MONTH * MICROS_PER_DAY);
                years + rest + i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(micros)
            },
            false,
        ),
    }
}

/// Millionths out of microseconds, days and months; of instants only `within_day` or all microseconds count.
fn decimals(value: &ArrayRef, compute: &dyn Fn(i64, i64, i64) -> i128, within_day: bool) -> DfResult<ArrayRef> {
    let whole = |micros: i64| compute(if within_day { micros.rem_euclid(MICROS_PER_DAY) } else { micros }, 0, 0);
    let values: Decimal128Array = match value.data_type() {
        DataType::Date32 => {
            value.as_primitive::<Date32Type>().iter().map(|d| d.map(|d| compute(0, d.into(), 0))).collect()
        }
        DataType::Time64(_) => value.as_primitive::<Time64MicrosecondType>().iter().map(|t| t.map(whole)).collect(),
        DataType::Timestamp(..) => {
            value.as_primitive::<TimestampMicrosecondType>().iter().map(|t| t.map(whole)).collect()
        }
        _ => {
            let intervals = value.as_primitive::<IntervalMonthDayNanoType>();
            let one =
                |by: IntervalMonthDayNano| compute(by.nanoseconds / NANOS_PER_MICRO, by.days.into(), by.months.into());
            intervals.iter().map(|by| by.map(one)).collect()
        }
    };
    Ok(Arc::new(values.with_precision_and_scale(38, 6)?))
}

fn coerce_to_char(types: &[DataType]) -> DfResult<Vec<DataType>> {
    let [value, _] = types else { return wrong_types("to_char") };
    let value = match value {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 | DataType::Null => TIMESTAMP,
        _ => return wrong_types("to_char"),
    };
    Ok(vec![value, DataType::Utf8View])
}

fn to_char(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let times = args[0].as_primitive::<TimestampMicrosecondType>();
    let shown = times.iter().zip(args[1].as_string_view()).map(|(at, format)| Some(formatted(at?, format?)));
    Ok(Arc::new(shown.collect::<StringViewArray>()))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The patterns of PostgreSQL's `to_char` that are in use; other text stands for itself.
fn formatted(micros: i64, format: &str) -> String {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let within = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (within / MICROS_PER_SECOND, within % MICROS_PER_SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let half = if hour % 12 == 0 { 12 } else { hour % 12 };
    let month_name = MONTHS[(month as usize + 11) % 12];
    let day_name = DAYS[days.rem_euclid(7) as usize];
    let patterns: [(&str, String); 24] = [
        ("YYYY", format!("{year:04}")),
        ("YY", format!("{:02}", year % 100)),
        ("Month", format!("{month_name:<9}")),
        ("MONTH", format!("{:<9}", month_name.to_uppercase())),
        ("Mon", month_name[..3].into()),
        ("MON", month_name[..3].to_uppercase()),
        ("MM", format!("{month:02}")),
        ("MI", format!("{minute:02}")),
        ("MS", format!("{:03}", fraction / 1000)),
        ("US", format!("{fraction:06}")),
        ("HH24", format!("{hour:02}")),
        ("HH12", format!("{half:02}")),
        ("HH", format!("{half:02}")),
        ("SS", format!("{second:02}")),
        ("DDD", format!("{:03}", days - model::temporal::days_from_civil(year, 1, 1) + 1)),
        ("DD", format!("{day:02}")),
        ("Day", format!("{day_name:<9}")),
        ("DAY", format!("{:<9}", day_name.to_uppercase())),
        ("Dy", day_name[..3].into()),
        ("DY", day_name[..3].to_uppercase()),
        ("AM", if hour < 12 { "AM" } else { "PM" }.into()),
        ("PM", if hour < 12 { "AM" } else { "PM" }.into()),
        ("Q", format!("{}", (month + 2) / 3)),
        ("FM", String::new()),
    ];
    let (mut out, mut rest) = (String::new(), format);
    while let Some(next) = rest.chars().next() {
        if let Some((inside, after)) = rest.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            out.push_str(inside);
            rest = after;
        } else if let Some((pattern, value)) = patterns.iter().find(|(pattern, _)| rest.starts_with(pattern)) {
            out.push_str(value);
            rest = &rest[pattern.len()..];
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_shown_as_postgresql_shows_them() {
        let shown = |months, days, micros: i64| interval_text(IntervalMonthDayNano::new(months, days, micros * 1000));
        assert_eq!(shown(14, 3, 14_706_500_000), "1 year 2 mons 3 days 04:05:06.5");
        assert_eq!(shown(0, -1, 7_200_000_000), "-1 days +02:00:00");
        assert_eq!(shown(0, 0, 0), "00:00:00");
        assert_eq!(shown(0, 1, 0), "1 day");
        assert_eq!(shown(-1, 0, -1_000_000), "-1 mons -00:00:01");
        assert_eq!(shown(0, 0, 90_000_000_000), "25:00:00");
    }

    #[test]
    fn times_are_formatted_by_patterns() {
        let at = model::temporal::parse_timestamp("2024-02-29 15:05:06.007").unwrap();
        assert_eq!(formatted(at, "YYYY-MM-DD HH24:MI:SS.MS"), "2024-02-29 15:05:06.007");
        assert_eq!(formatted(at, "Dy, DD Mon YY HH12 PM \"MM\" DDD"), "Thu, 29 Feb 24 03 PM MM 060");
    }
}
