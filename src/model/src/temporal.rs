//! Dates and times as the integers they are kept as, and their ISO 8601 text.
//!
//! The calendar is the proleptic Gregorian one; years go from 1 to 9999.

use crate::error::{Code, Error, Result};

pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days since 1970-01-01 of a calendar date (Howard Hinnant's algorithm, in eras of 400 years).
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

pub fn format_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

pub fn format_time(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(MICROS_PER_SECOND), micros.rem_euclid(MICROS_PER_SECOND));
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return text;
    }
    format!("{text}.{fraction:06}").trim_end_matches('0').to_owned()
}

/// `2013-01-01 05:00:00`; with a zone, `+00` follows.
pub fn format_timestamp(micros: i64, with_zone: bool) -> String {
    let (days, rest) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let zone = if with_zone { "+00" } else { "" };
    format!("{} {}{zone}", format_date(days), format_time(rest))
}

/// Reads `2013-01-31` as days since 1970-01-01.
pub fn parse_date(text: &str) -> Result<i64> {
    let bad = || Error::new(Code::WrongType, format!("\"{text}\" is not a date")).with_hint("write it as 2013-01-31");
    let mut parts = text.trim().splitn(3, '-');
    let mut number = |width: usize| -> Option<i64> {
        let part = parts.next()?;
        (part.len() == width && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
    };
    let (year, month, day) = (number(4), number(2), number(2));
    let (Some(year), Some(month), Some(day)) = (year, month, day) else { return Err(bad()) };
    let days = days_from_civil(year, month, day);
    if year < 1 || !(1..=12).contains(&month) || civil_from_days(days) != (year, month, day) {
        return Err(bad());
    }
    Ok(days)
}

/// Reads `05:00`, `05:00:00` or `05:00:00.123456` as microseconds since midnight.
pub fn parse_time(text: &str) -> Result<i64> {
    let bad = || Error::new(Code::WrongType, format!("\"{text}\" is not a time")).with_hint("write it as 05:00:00.25");
    let (clock, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let mut fields = [0i64; 3];
    let parts: Vec<&str> = clock.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return Err(bad());
    }
    for (field, part) in fields.iter_mut().zip(&parts) {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        *field = part.parse().map_err(|_| bad())?;
    }
    let [hours, minutes, seconds] = fields;
    let fraction_fits = fraction.len() <= 6 && fraction.bytes().all(|b| b.is_ascii_digit());
    if hours > 23 || minutes > 59 || seconds > 59 || !fraction_fits {
        return Err(bad());
    }
    let micros: i64 = format!("{fraction:0<6}").parse().map_err(|_| bad())?;
    Ok((hours * 3600 + minutes * 60 + seconds) * MICROS_PER_SECOND + micros)
}

/// Reads `2013-01-31 05:00:00[.25][Z|+02|+02:00]` (a `T` may stand for the space, the time may be left out) as
/// microseconds since 1970-01-01; an offset is subtracted, so that the result is UTC.
pub fn parse_timestamp(text: &str) -> Result<i64> {
    let bad = || {
        Error::new(Code::WrongType, format!("\"{text}\" is not a timestamp"))
            .with_hint("write it as 2013-01-31 05:00:00")
    };
    let trimmed = text.trim();
    let Some((date, clock)) = trimmed.split_once(['T', 't', ' ']) else {
        return parse_date(trimmed).map(|days| days * MICROS_PER_DAY).map_err(|_| bad());
    };
    let (clock, offset_minutes) = split_offset(clock).ok_or_else(bad)?;
    let days = parse_date(date).map_err(|_| bad())?;
    let micros = parse_time(clock).map_err(|_| bad())?;
    Ok(days * MICROS_PER_DAY + micros - offset_minutes * 60 * MICROS_PER_SECOND)
}

/// Splits `05:00:00+02:30` into the clock and the offset in minutes.
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = clock.rfind(['+', '-']) else { return Some((clock, 0)) };
    let sign = if clock.as_bytes()[at] == b'-' { -1 } else { 1 };
    let (hours, minutes) = clock[at + 1..].split_once(':').unwrap_or((&clock[at + 1..], "0"));
    let hours: i64 = hours.parse().ok().filter(|h| (0..=15).contains(h))?;
    let minutes: i64 = minutes.parse().ok().filter(|m| (0..60).contains(m))?;
    Some((clock[..at].trim_end(), sign * (hours * 60 + minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dates_round_trip(days in -719_162i64..2_932_896) {
            prop_assert_eq!(parse_date(&format_date(days)).unwrap(), days);
        }

        #[test]
        fn timestamps_round_trip(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            prop_assert_eq!(parse_timestamp(&format_timestamp(micros, false)).unwrap(), micros);
            prop_assert_eq!(parse_timestamp(&format_timestamp(micros, true)).unwrap(), micros);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = (parse_date(&text), parse_time(&text), parse_timestamp(&text));
        }
    }

    #[test]
    fn known_instants() {
        assert_eq!(parse_date("1970-01-01").unwrap(), 0);
        assert_eq!(parse_date("2013-12-31").unwrap(), 16_070);
        assert_eq!(parse_timestamp("2013-01-01T05:00:00Z").unwrap(), 1_357_016_400_000_000);
        assert_eq!(parse_timestamp("2013-01-01 05:00:00+02:30").unwrap(), 1_357_016_400_000_000 - 9_000_000_000);
        assert_eq!(format_timestamp(1_357_016_400_250_000, false), "2013-01-01 05:00:00.25");
        for text in ["2013-02-29", "2013-13-01", "0000-01-01", "13-01-01", "", "2013-01-01x"] {
            assert!(parse_date(text).is_err(), "{text}");
        }
    }
}
