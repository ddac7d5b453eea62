//! Functions on texts that the engine lacks.

use super::{Function, call, is_text, nullable, text, wrong_types, wrong_value};
use datafusion::arrow::array::{ArrayRef, AsArray, Int32Array, StringViewArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use std::sync::{Arc, LazyLock};

static TRIM_PADDING: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Function::new("trim_padding", one_text, text, trimmed).udf());

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let integer = |_: &ReturnFieldArgs<'_>| Ok(nullable(DataType::Int32));
    vec![
        Function::new("like_pattern", two_texts, text, like_patterns).udf(),
        Function::new("similar_pattern", two_texts, text, similar_patterns).udf(),
        Function::new("octet_length", text_or_bytes, integer, octet_length).udf(),
        TRIM_PADDING.clone(),
    ]
}

/// CHAR(n) without the spaces at its end, which mean nothing.
pub fn trim_padding(value: Expr) -> Expr {
    call(TRIM_PADDING.clone(), vec![value])
}

fn one_text(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [ty] if is_text(ty) => Ok(vec![DataType::Utf8View]),
        _ => wrong_types("of a text"),
    }
}

fn two_texts(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [left, right] if is_text(left) && is_text(right) => Ok(vec![DataType::Utf8View; 2]),
        _ => wrong_types("of two texts"),
    }
}

fn text_or_bytes(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)] => {
            Ok(vec![DataType::BinaryView])
        }
        types => one_text(types),
    }
}

fn octet_length(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let length = |bytes: &[u8]| i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    let lengths: Int32Array = match args[0].data_type() {
        DataType::BinaryView => args[0].as_binary_view().iter().map(|bytes| bytes.map(length)).collect(),
        _ => args[0].as_string_view().iter().map(|text| text.map(|text| length(text.as_bytes()))).collect(),
    };
    Ok(Arc::new(lengths))
}

fn trimmed(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let trimmed = args[0].as_string_view().iter().map(|text| text.map(|text| text.trim_end_matches(' ')));
    Ok(Arc::new(trimmed.collect::<StringViewArray>()))
}

/// LIKE patterns with an escape of one's own, or none, as the engine's patterns, which escape by a backslash.
fn like_patterns(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let (patterns, escapes) = (args[0].as_string_view(), args[1].as_string_view());
    let rewritten = patterns.iter().zip(escapes).map(|pair| match pair {
        (Some(pattern), Some(escape)) => like_pattern(pattern, escape).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(rewritten.collect::<DfResult<StringViewArray>>()?))
}

fn like_pattern(pattern: &str, escape: &str) -> DfResult<String> {
    let mut chars = escape.chars();
    let (escape, more) = (chars.next(), chars.next());
    if more.is_some() {
        return Err(wrong_value("ESCAPE takes one character, or none"));
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let next = chars.next().ok_or_else(|| wrong_value("a LIKE pattern ends in its escape character"))?;
            if matches!(next, '%' | '_' | '\\') {
                out.push('\\');
            }
            out.push(next);
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// Patterns of SIMILAR TO as regular expressions.
fn similar_patterns(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let (patterns, escapes) = (args[0].as_string_view(), args[1].as_string_view());
    let rewritten = patterns.iter().zip(escapes).map(|pair| Some(similar_pattern(pair.0?, pair.1?)));
    Ok(Arc::new(rewritten.collect::<StringViewArray>()))
}

fn similar_pattern(pattern: &str, escape: &str) -> String {
    let escape = escape.chars().next();
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                out.push('\\');
                out.extend(chars.next());
            }
            '[' | ']' => {
                in_class = c == '[';
                out.push(c);
            }
            c if in_class => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out + ")$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_escaped_anew() {
        let rewrite = |pattern, escape| like_pattern(pattern, escape).unwrap();
        assert_eq!(rewrite("50!%", "!"), "50\\%");
        assert_eq!(rewrite("a!!b", "!"), "a!b");
        assert_eq!(rewrite("a\\b", "!"), "a\\\\b");
        assert_eq!(rewrite("a\\%", ""), "a\\\\%");
        assert_eq!(rewrite("a\\_", "\\"), "a\\_");
        assert_eq!(rewrite("%\u{e4}_", "\u{e4}"), "%\\_");
        assert!(like_pattern("a!", "!").is_err() && like_pattern("a", "xy").is_err());
    }
}
