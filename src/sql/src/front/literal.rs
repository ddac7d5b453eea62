//! Literals between the parser's tree and our values, in both directions.
//!
//! Exactness is kept: `1.5` is a decimal, a parameter that is a double stays one, a timestamp keeps its type.

use model::{ColumnType, Decimal, Result, Value};
use sqlparser::ast::{
    self, Array, CastKind, DataType, ExactNumberInfo, Expr, TimezoneInfo, TypedString, UnaryOperator, ValueWithSpan,
};

/// The value of a literal with an optional sign; None when the expression is more than that.
///
/// Errors: a typed string like `DATE '2013-02-30'` that is none.
pub fn constant(expr: &Expr) -> Option<Result<Value>> {
    match expr {
        Expr::Value(ValueWithSpan { value, .. }) => plain(value).map(Ok),
        Expr::Nested(inner) => constant(inner),
        Expr::UnaryOp { op: op @ (UnaryOperator::Minus | UnaryOperator::Plus), expr } => match &**expr {
            Expr::Value(ValueWithSpan { value: ast::Value::Number(digits, _), .. }) => {
                let sign = if *op == UnaryOperator::Minus { "-" } else { "" };
                Some(Ok(number(&format!("{sign}{digits}"))))
            }
            _ => None,
        },
        Expr::TypedString(TypedString { data_type, value, .. }) => {
            let ast::Value::SingleQuotedString(text) = &value.value else { return None };
            Some(super::types::column_type(data_type).and_then(|ty| Value::Text(text.clone()).coerce(ty)))
        }
        _ => None,
    }
}

fn plain(value: &ast::Value) -> Option<Value> {
    Some(match value {
        ast::Value::Number(digits, _) => number(digits),
        ast::Value::SingleQuotedString(text)
        | ast::Value::EscapedStringLiteral(text)
        | ast::Value::UnicodeStringLiteral(text)
        | ast::Value::NationalStringLiteral(text) => Value::Text(text.clone()),
        ast::Value::DollarQuotedString(quoted) => Value::Text(quoted.value.clone()),
        ast::Value::HexStringLiteral(digits) => Value::Bytes(hex(digits)?),
        ast::Value::Boolean(boolean) => Value::Boolean(*boolean),
        ast::Value::Null => Value::Null,
        _ => return None,
    })
}

/// An integer where it fits, else an exact decimal, else a double.
fn number(digits: &str) -> Value {
    let digits = digits.replace('_', "");
    if let Ok(integer) = digits.parse::<i64>() {
        return Value::Integer(integer);
    }
    match digits.parse::<Decimal>() {
        Ok(decimal) => Value::Decimal(decimal),
        Err(_) => Value::Double(digits.parse().unwrap_or(f64::NAN)),
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).map(|n| n as u8)).collect();
    let nibbles = nibbles.filter(|n| n.len() % 2 == 0)?;
    Some(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A parameter's value as an expression of the same type.
pub fn expression(value: &Value) -> Expr {
    let text = |value: &Value| shown(value);
    match value {
        Value::Null => literal(ast::Value::Null),
        Value::Boolean(boolean) => literal(ast::Value::Boolean(*boolean)),
        Value::Integer(integer) => literal(ast::Value::Number(integer.to_string(), false)),
        Value::Double(double) => cast(double_text(*double), DataType::DoublePrecision),
        Value::Decimal(decimal) => {
            let digits = decimal.unscaled.unsigned_abs().to_string().len().max(usize::from(decimal.scale)).max(1);
            let info = ExactNumberInfo::PrecisionAndScale(digits as u64, decimal.scale.into());
            cast(decimal.to_string(), DataType::Decimal(info))
        }
        Value::Text(text) => literal(ast::Value::SingleQuotedString(text.clone())),
        Value::Bytes(bytes) => {
            literal(ast::Value::HexStringLiteral(bytes.iter().map(|byte| format!("{byte:02X}")).collect()))
        }
        Value::Uuid(_) => literal(ast::Value::SingleQuotedString(text(value))),
        Value::Date(_) => cast(text(value), DataType::Date),
        Value::Time(_) => cast(text(value), DataType::Time(None, TimezoneInfo::None)),
        Value::Timestamp(_) => cast(text(value), DataType::Timestamp(None, TimezoneInfo::None)),
        Value::TimestampTz(_) => cast(text(value), DataType::Timestamp(None, TimezoneInfo::WithTimeZone)),
        Value::Array(items) => Expr::Array(Array { elem: items.iter().map(expression).collect(), named: true }),
    }
}

/// The same value where a bare integer would be taken for the position of an output column.
pub fn expression_not_ordinal(value: &Value) -> Expr {
    match value {
        Value::Integer(integer) => cast(integer.to_string(), DataType::BigInt(None)),
        other => expression(other),
    }
}

fn shown(value: &Value) -> String {
    value.to_string()
}

/// Text that the engine reads back as this very double.
fn double_text(double: f64) -> String {
    match double {
        d if d.is_nan() => "NaN".into(),
        d if d.is_infinite() => if d > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        d => format!("{d:e}"),
    }
}

fn literal(value: ast::Value) -> Expr {
    Expr::Value(value.into())
}

fn cast(text: String, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(literal(ast::Value::SingleQuotedString(text))),
        data_type,
        array: false,
        format: None,
    }
}

/// The default value that DDL wrote for a column of type `ty`, checked and as the column keeps it.
pub fn default_value(expr: &Expr, ty: ColumnType) -> Option<Result<Value>> {
    constant(expr).map(|value| value.and_then(|value| value.coerce(ty)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sqlparser::parser::Parser;

    fn parsed(text: &str) -> Expr {
        Parser::new(&super::super::dialect::PicodataDialect).try_with_sql(text).unwrap().parse_expr().unwrap()
    }

    #[test]
    fn literals_keep_their_exact_type() {
        let value = |text: &str| constant(&parsed(text)).unwrap().unwrap();
        assert_eq!(value("42"), Value::Integer(42));
        assert_eq!(value("-9223372036854775808"), Value::Integer(i64::MIN));
        assert_eq!(value("9223372036854775808").kind(), "decimal");
        assert_eq!(value("1.50").to_string(), "1.50");
        assert_eq!(value("1e40").kind(), "double");
        assert_eq!(value("(-1)"), Value::Integer(-1));
        assert_eq!(value("'it''s'"), Value::Text("it's".into()));
        assert_eq!(value("X'00ff'"), Value::Bytes(vec![0, 255]));
        assert_eq!(value("DATE '1970-01-02'"), Value::Date(1));
        assert_eq!(value("TIMESTAMP '1970-01-01 00:00:01'"), Value::Timestamp(1_000_000));
        assert_eq!(value("NULL"), Value::Null);
        assert!(constant(&parsed("DATE '1970-02-30'")).unwrap().is_err());
        assert!(constant(&parsed("1 + 1")).is_none());
        assert!(constant(&parsed("a")).is_none());
    }

    proptest! {
        #[test]
        fn numbers_survive_as_expressions(integer in any::<i64>(), double in any::<f64>()) {
            prop_assert_eq!(constant(&parsed(&expression(&Value::Integer(integer)).to_string())).unwrap().unwrap(), Value::Integer(integer));
            if double.is_finite() {
                prop_assert_eq!(double_text(double).parse::<f64>().unwrap(), double);
            }
        }

        #[test]
        fn text_survives_as_an_expression(text in any::<String>()) {
            let expr = expression(&Value::Text(text.clone()));
            prop_assert_eq!(constant(&expr).unwrap().unwrap(), Value::Text(text));
        }
    }
}
