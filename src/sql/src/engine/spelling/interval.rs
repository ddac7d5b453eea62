//! Interval literals with two fields, as one text that names its units.

use model::{Code, Error, Result};
use sqlparser::ast::{DateTimeField as F, Expr, Interval, Value};

/// `INTERVAL '1-2' YEAR TO MONTH` becomes `INTERVAL '1 years 2 months'`, and so on.
///
/// Errors: `WrongType` for a text that is none of the form.
pub fn respell(interval: &mut Interval) -> Result<()> {
    let Expr::Value(value) = &mut *interval.value else { return Ok(()) };
    let Value::SingleQuotedString(text) = &value.value else { return Ok(()) };
    let (Some(first), Some(last)) = (&interval.leading_field, &interval.last_field) else {
        if interval.leading_field.is_none() {
            let spelled = with_clock(text).ok_or_else(|| unreadable(text))?;
            value.value = Value::SingleQuotedString(spelled);
        }
        return Ok(());
    };
    let units: &[&str] = match (first, last) {
        (F::Year, F::Month) => &["years", "months"],
        (F::Day, F::Hour) => &["days", "hours"],
        (F::Day, F::Minute) => &["days", "hours", "minutes"],
        (F::Day, F::Second) => &["days", "hours", "minutes", "seconds"],
        (F::Hour, F::Minute) => &["hours", "minutes"],
        (F::Hour, F::Second) => &["hours", "minutes", "seconds"],
        (F::Minute, F::Second) => &["minutes", "seconds"],
        _ => return Err(unreadable(text)),
    };
    let spelled = spell(text, units).ok_or_else(|| unreadable(text))?;
    value.value = Value::SingleQuotedString(spelled);
    (interval.leading_field, interval.last_field) = (None, None);
    Ok(())
}

fn unreadable(text: &str) -> Error {
    Error::new(Code::WrongType, format!("\"{text}\" is no interval of these fields"))
}

/// The same for a text that is cast to an interval; one that is none is left to be refused then.
pub fn respell_text(text: &mut String) {
    if let Some(spelled) = with_clock(text) {
        *text = spelled;
    }
}

/// `1 day 02:00:00`, as intervals are shown, with words for the fields of its time.
fn with_clock(text: &str) -> Option<String> {
    let mut named = Vec::new();
    for part in text.split_whitespace() {
        let (sign, fields) = match part.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", part.strip_prefix('+').unwrap_or(part)),
        };
        let fields: Vec<&str> = fields.split(':').collect();
        match &fields[..] {
            [word] => named.push(format!("{sign}{word}")),
            [hours, minutes] => named.push(format!("{sign}{hours} hours {sign}{minutes} minutes")),
            [hours, minutes, seconds] => {
                named.push(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"));
            }
            _ => return None,
        }
    }
    Some(named.join(" "))
}

/// A sign before the text is for all its fields.
fn spell(text: &str, units: &[&str]) -> Option<String> {
    let text = text.trim();
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<&str> = rest.split(['-', ' ', ':']).filter(|part| !part.is_empty()).collect();
    let is_number = |part: &&str| part.chars().all(|c| c.is_ascii_digit() || c == '.');
    if parts.len() != units.len() || !parts.iter().all(is_number) {
        return None;
    }
    let named: Vec<String> = parts.iter().zip(units).map(|(part, unit)| format!("{sign}{part} {unit}")).collect();
    Some(named.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{spell, with_clock};

    #[test]
    fn fields_are_named() {
        assert_eq!(spell("1-2", &["years", "months"]).as_deref(), Some("1 years 2 months"));
        assert_eq!(spell("-1-2", &["years", "months"]).as_deref(), Some("-1 years -2 months"));
        let units = &["days", "hours", "minutes", "seconds"];
        assert_eq!(spell("3 04:05:06.5", units).as_deref(), Some("3 days 04 hours 05 minutes 06.5 seconds"));
        assert_eq!(spell("3 04:05", units), None);
    }

    #[test]
    fn the_time_of_an_interval_is_spelled_out() {
        assert_eq!(with_clock("1 day -02:00:03.5").as_deref(), Some("1 day -02 hours -00 minutes -03.5 seconds"));
        assert_eq!(with_clock("-2 mons +1 day").as_deref(), Some("-2 mons 1 day"));
        assert_eq!(with_clock("1:2:3:4"), None);
    }
}
