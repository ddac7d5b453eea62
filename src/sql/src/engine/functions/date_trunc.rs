//! `date_trunc(unit, value)`: the engine's own counts in nanoseconds, which end in 2262.

use super::{Function, nullable, out_of_range, wrong_types, wrong_value};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use model::temporal::{civil_from_days, days_from_civil};
use std::sync::Arc;

const NAME: &str = "date_trunc";
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 1970-01-01 was a Thursday; weeks begin on Mondays.
const DAYS_SINCE_MONDAY: i64 = 3;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new(NAME, coerce, returns, run).udf()]
}

fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
    let [_, value] = types else { return wrong_types(NAME) };
    let value = match value {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date32
        | DataType::Date64
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::LargeUtf8
        | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => return wrong_types(NAME),
    };
    Ok(vec![DataType::Utf8, value])
}

fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    match args.arg_fields {
        [_, value] => Ok(nullable(value.data_type().clone())),
        _ => wrong_types(NAME),
    }
}

/// What is cut off.
#[derive(Clone, Copy)]
enum Unit {
    Micros(i64),
    Week,
    Months(i64),
    /// Centuries and millennia begin with their year 1.
    Years(i64),
    Decade,
}

fn unit_of(name: &str) -> DfResult<Unit> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "microsecond" | "microseconds" | "us" => Unit::Micros(1),
        "millisecond" | "milliseconds" | "ms" => Unit::Micros(1_000),
        "second" | "seconds" | "sec" | "s" => Unit::Micros(SECOND),
        "minute" | "minutes" | "min" => Unit::Micros(60 * SECOND),
        "hour" | "hours" | "h" => Unit::Micros(3_600 * SECOND),
        "day" | "days" | "d" => Unit::Micros(DAY),
        "week" | "weeks" => Unit::Week,
        "month" | "months" => Unit::Months(1),
        "quarter" => Unit::Months(3),
        "year" | "years" => Unit::Months(12),
        "decade" | "decades" => Unit::Decade,
        "century" | "centuries" => Unit::Years(100),
        "millennium" | "millennia" => Unit::Years(1_000),
        _ => return Err(wrong_value(format!("date_trunc has no unit \"{name}\""))),
    })
}

/// The first moment of the unit that a moment is in; None past the ends of time.
fn first_of(micros: i64, unit: Unit) -> Option<i64> {
    let (year, month, _) = civil_from_days(micros.div_euclid(DAY));
    let first = |year: i64, month: i64| days_from_civil(year, month, 1).checked_mul(DAY);
    match unit {
        Unit::Micros(length) => micros.checked_sub(micros.rem_euclid(length)),
        Unit::Week => {
            let days = micros.div_euclid(DAY);
            days.checked_sub((days + DAYS_SINCE_MONDAY).rem_euclid(7))?.checked_mul(DAY)
        }
        Unit::Months(count) if count < 12 => first(year, (month - 1) / count * count + 1),
        Unit::Months(_) => first(year, 1),
        Unit::Decade => first(year.div_euclid(10) * 10, 1),
        Unit::Years(count) => first((year - 1).div_euclid(count) * count + 1, 1),
    }
}

fn run(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let units = args[0].as_string::<i32>().iter();
    let mut known: Option<(String, Unit)> = None;
    let mut unit = |name: &str| match &known {
        Some((before, unit)) if before == name => Ok(*unit),
        _ => unit_of(name).inspect(|unit| known = Some((name.to_owned(), *unit))),
    };
    match args[1].data_type() {
        DataType::Time64(_) => {
            let values = units.zip(args[1].as_primitive::<Time64MicrosecondType>().iter()).map(|pair| match pair {
                (Some(name), Some(at)) => match unit(name)? {
                    unit @ Unit::Micros(length) if length < DAY => {
                        first_of(at, unit).map(Some).ok_or_else(out_of_range)
                    }
                    _ => Err(wrong_value(format!("a time has no unit \"{name}\" to be cut to"))),
                },
                _ => Ok(None),
            });
            Ok(Arc::new(values.collect::<DfResult<Int64Array>>()?.reinterpret_cast::<Time64MicrosecondType>()))
        }
        DataType::Timestamp(_, zone) => {
            let values = units.zip(args[1].as_primitive::<TimestampMicrosecondType>().iter()).map(|pair| match pair {
                (Some(name), Some(at)) => first_of(at, unit(name)?).map(Some).ok_or_else(out_of_range),
                _ => Ok(None),
            });
            let cut = values.collect::<DfResult<Int64Array>>()?.reinterpret_cast::<TimestampMicrosecondType>();
            Ok(Arc::new(cut.with_timezone_opt(zone.clone())))
        }
        _ => wrong_types(NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::temporal::{format_timestamp, parse_timestamp};

    #[test]
    fn moments_are_cut_to_units() {
        let at = parse_timestamp("1523-05-17 15:05:06.007008").unwrap();
        for (unit, first) in [
            ("milliseconds", "1523-05-17 15:05:06.007"),
            ("SECOND", "1523-05-17 15:05:06"),
            ("hour", "1523-05-17 15:00:00"),
            ("day", "1523-05-17 00:00:00"),
            ("week", "1523-05-14 00:00:00"),
            ("quarter", "1523-04-01 00:00:00"),
            ("year", "1523-01-01 00:00:00"),
            ("decade", "1520-01-01 00:00:00"),
            ("century", "1501-01-01 00:00:00"),
            ("millennium", "1001-01-01 00:00:00"),
        ] {
            let cut = first_of(at, unit_of(unit).unwrap()).unwrap();
            assert_eq!(format_timestamp(cut, false), first, "{unit}");
        }
        assert!(unit_of("fortnight").is_err());
        assert_eq!(first_of(i64::MIN, Unit::Micros(DAY)), None);
    }
}
