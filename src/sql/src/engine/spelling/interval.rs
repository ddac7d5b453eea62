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
    let text: String = text.chars().take(60).collect();
    Error::new(Code::WrongType, format!("\"{text}\" is no interval of these fields"))
}

/// The same for a text that is cast to an interval; one that is none is left to be refused then.
pub fn respell_text(text: &mut String) {
    if let Some(spelled) = with_clock(text) {
        *text = spelled;
    }
}

/// `1 day 02:00:00`, as intervals are shown, with words for the fields of its time; a number alone before it are days. None for
/// a time that is none.
fn with_clock(text: &str) -> Option<String> {
    let mut named = Vec::new();
    let mut parts = text.split_whitespace().peekable();
    while let Some(part) = parts.next() {
        let (sign, word) = match part.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", part.strip_prefix('+').unwrap_or(part)),
        };
        let is_clock_next = parts.peek().is_some_and(|next| next.contains(':'));
        match word.contains(':') {
            true => named.push(clock(sign, word)?),
            false if is_clock_next && is_whole(word) => named.push(format!("{sign}{word} days")),
            false => named.push(format!("{sign}{word}")),
        }
    }
    Some(named.join(" "))
}

fn is_whole(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `hours:minutes[:seconds]`
fn clock(sign: &str, text: &str) -> Option<String> {
    let mut fields = text.split(':');
    let (hours, minutes, seconds) = (fields.next()?, fields.next()?, fields.next().unwrap_or("0"));
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let is_below_60 = |digits: &str| digits.len() <= 2 && digits.parse::<u8>().is_ok_and(|number| number < 60);
    let all_whole = [hours, minutes, whole, fraction].iter().all(|digits| is_whole(digits));
    if fields.next().is_some() || !all_whole || !is_below_60(minutes) || !is_below_60(whole) {
        return None;
    }
    Some(format!("{sign}{hours} hours {sign}{minutes} minutes {sign}{seconds} seconds"))
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
        assert_eq!(with_clock("1 12:30").as_deref(), Some("1 days 12 hours 30 minutes 0 seconds"));
        assert_eq!(with_clock("-2 mons +1 day").as_deref(), Some("-2 mons 1 day"));
        for text in ["1:2:3:4", "1:62", "1:2:63", "1:-2", "1.5:00", "1:", ":1"] {
            assert_eq!(with_clock(text), None, "{text}");
        }
    }
}
