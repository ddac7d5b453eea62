//! Exact decimals of up to 38 digits: an unscaled integer and the digits after the point.
//!
//! The wire form is the host's: MessagePack extension 1, the scale as an integer, then the digits packed two to a
//! byte with a sign nibble at the end (0x0c plus, 0x0d minus).

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// MessagePack's extension type for decimals on the host.
pub const EXT_TYPE: i8 = 1;
/// Digits that fit.
pub const DIGITS_MAX: usize = 38;

/// `unscaled` / 10^`scale`. Equality and order are by value: 1.0 equals 1.00.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Decimal {
    pub unscaled: i128,
    pub scale: u8,
}

impl Decimal {
    pub fn new(unscaled: i128, scale: u8) -> Self {
        assert!(usize::from(scale) <= DIGITS_MAX);
        Self { unscaled, scale }
    }

    /// The same value without zeros at the end of the fraction.
    pub fn normalized(self) -> Self {
        let mut d = self;
        if d.unscaled == 0 {
            return Self { unscaled: 0, scale: 0 };
        }
        while d.scale > 0 && d.unscaled % 10 == 0 {
            d.unscaled /= 10;
            d.scale -= 1;
        }
        d
    }

    /// The value as an integer, if it is one that fits.
    pub fn to_i64(self) -> Option<i64> {
        let d = self.normalized();
        if d.scale == 0 { i64::try_from(d.unscaled).ok() } else { None }
    }

    pub fn to_f64(self) -> f64 {
        // Through text, so that the result is the closest double.
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The same value at another scale, rounded half away from zero; None when it has too many digits.
    pub fn rescaled(self, scale: u8) -> Option<Self> {
        if scale >= self.scale {
            let factor = 10i128.checked_pow(u32::from(scale - self.scale))?;
            let unscaled = self.unscaled.checked_mul(factor)?;
            return (digits(unscaled) <= DIGITS_MAX).then_some(Self { unscaled, scale });
        }
        let factor = 10i128.checked_pow(u32::from(self.scale - scale))?;
        let (quotient, remainder) = (self.unscaled / factor, self.unscaled % factor);
        let up = remainder.unsigned_abs() >= factor.unsigned_abs().div_ceil(2);
        Some(Self { unscaled: quotient + if up { self.unscaled.signum() } else { 0 }, scale })
    }

    /// Whether the value fits DECIMAL(precision, scale) after rounding to its scale; the rounded value if so.
    pub fn fit(self, precision: u8, scale: u8) -> Option<Self> {
        let d = self.rescaled(scale)?;
        (digits(d.unscaled) <= usize::from(precision)).then_some(d)
    }

    /// Appends the extension's payload (without MessagePack's header).
    pub fn write_payload(self, out: &mut Vec<u8>) {
        out.push(self.scale); // A positive fixint: scales end at 38.
        let negative = self.unscaled < 0;
        let mut text = [0u8; 40];
        let digits = digits_of(self.unscaled.unsigned_abs(), &mut text);
        let sign = if negative { 0x0d } else { 0x0c };
        let mut nibbles = digits.iter().copied().chain([sign]);
        if digits.len().is_multiple_of(2) {
            out.push(nibbles.next().unwrap_or(0)); // The count with the sign is odd: a zero nibble leads.
        }
        while let (Some(high), Some(low)) = (nibbles.next(), nibbles.next()) {
            out.push(high << 4 | low);
        }
    }

    /// Reads the extension's payload.
    pub fn read_payload(payload: &[u8]) -> Result<Self> {
        let bad = || Error::new(Code::Corrupted, "a decimal's bytes are not a decimal");
        let mut rest = payload;
        let scale = rmp::decode::read_int::<i32, _>(&mut rest).map_err(|_| bad())?;
        let mut unscaled: i128 = 0;
        let (last, body) = rest.split_last().ok_or_else(bad)?;
        let nibbles = body.iter().flat_map(|b| [b >> 4, b & 15]).chain([last >> 4]);
        for nibble in nibbles {
            if nibble > 9 {
                return Err(bad());
            }
            unscaled = unscaled.checked_mul(10).and_then(|u| u.checked_add(i128::from(nibble))).ok_or_else(bad)?;
        }
        match last & 15 {
            0x0a | 0x0c | 0x0e | 0x0f => {}
            0x0b | 0x0d => unscaled = -unscaled,
            _ => return Err(bad()),
        }
        if scale < 0 {
            let factor = 10i128.checked_pow(scale.unsigned_abs()).ok_or_else(bad)?;
            unscaled = unscaled.checked_mul(factor).ok_or_else(bad)?;
        }
        let scale = u8::try_from(scale.max(0)).map_err(|_| bad())?;
        if usize::from(scale) > DIGITS_MAX {
            return Err(bad());
        }
        Ok(Self { unscaled, scale })
    }
}

/// The decimal digits of `n` as numbers, most significant first; at least one.
fn digits_of(mut n: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &buffer[at..];
        }
    }
}

fn digits(n: i128) -> usize {
    digits_of(n.unsigned_abs(), &mut [0; 40]).len()
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // Whole parts first; then fractions, brought to one scale, which always fits.
        let whole = |d: &Self| {
            10i128.checked_pow(u32::from(d.scale)).map_or((0, d.unscaled), |p| (d.unscaled / p, d.unscaled % p))
        };
        let ((a, a_rest), (b, b_rest)) = (whole(self), whole(other));
        let lift = |rest: i128, from: u8, to: u8| rest * 10i128.pow(u32::from(to - from));
        let scale = self.scale.max(other.scale);
        a.cmp(&b).then_with(|| lift(a_rest, self.scale, scale).cmp(&lift(b_rest, other.scale, scale)))
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self { unscaled: value.into(), scale: 0 }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let digits = self.unscaled.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl FromStr for Decimal {
    type Err = Error;

    /// Reads `-12.50`, `1e3`, `1.5E-2`.
    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::new(Code::WrongType, format!("\"{text}\" is not a decimal number of up to {DIGITS_MAX} digits"));
        let trimmed = text.trim();
        let (mantissa, exponent) = match trimmed.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| bad())?),
            None => (trimmed, 0),
        };
        let (negative, unsigned) = match mantissa.as_bytes().first() {
            Some(b'-') => (true, &mantissa[1..]),
            Some(b'+') => (false, &mantissa[1..]),
            _ => (false, mantissa),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad());
        }
        let mut unscaled: i128 = 0;
        for c in whole.chars().chain(fraction.chars()) {
            let digit = c.to_digit(10).ok_or_else(bad)?;
            unscaled = unscaled.checked_mul(10).and_then(|u| u.checked_add(digit.into())).ok_or_else(bad)?;
        }
        let scale = i64::try_from(fraction.len()).map_err(|_| bad())? - i64::from(exponent);
        let mut result = Self { unscaled: if negative { -unscaled } else { unscaled }, scale: 0 };
        if scale < 0 {
            let power = u32::try_from(-scale).map_err(|_| bad())?;
            let factor = 10i128.checked_pow(power).ok_or_else(bad)?;
            result.unscaled = result.unscaled.checked_mul(factor).ok_or_else(bad)?;
        } else {
            result.scale = u8::try_from(scale).map_err(|_| bad())?;
        }
        if digits(result.unscaled) > DIGITS_MAX || usize::from(result.scale) > DIGITS_MAX {
            return Err(bad());
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUND: i128 = 10i128.pow(38) - 1;

    proptest! {
        #[test]
        fn payload_round_trips(unscaled in -BOUND..=BOUND, scale in 0u8..=38) {
            let mut bytes = Vec::new();
            let d = Decimal::new(unscaled, scale);
            d.write_payload(&mut bytes);
            let back = Decimal::read_payload(&bytes).unwrap();
            prop_assert_eq!((back.unscaled, back.scale), (unscaled, scale));
        }

        #[test]
        fn text_round_trips(unscaled in -BOUND..=BOUND, scale in 0u8..=38) {
            let d = Decimal::new(unscaled, scale);
            let back: Decimal = d.to_string().parse().unwrap();
            prop_assert_eq!((back.unscaled, back.scale), (unscaled, scale));
        }

        #[test]
        fn order_is_by_value(a in -BOUND..=BOUND, sa in 0u8..=38, b in -BOUND..=BOUND, sb in 0u8..=38) {
            let (x, y) = (Decimal::new(a, sa), Decimal::new(b, sb));
            prop_assert_eq!(x.cmp(&y), y.cmp(&x).reverse());
            prop_assert_eq!(x, x.normalized());
            if (x.to_f64() - y.to_f64()).abs() > x.to_f64().abs() * 1e-9 {
                prop_assert_eq!(x < y, x.to_f64() < y.to_f64());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = Decimal::read_payload(&bytes);
        }
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let round = |text: &str, scale| text.parse::<Decimal>().unwrap().rescaled(scale).unwrap().to_string();
        assert_eq!(round("1.25", 1), "1.3");
        assert_eq!(round("-1.25", 1), "-1.3");
        assert_eq!(round("1.24", 1), "1.2");
        assert_eq!(round("0.05", 0), "0");
        assert_eq!(round("0.5", 0), "1");
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in ["", "-", ".", "1.2.3", "abc", "1e", "1e99", "1e-99", &"9".repeat(39)] {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
    }
}
