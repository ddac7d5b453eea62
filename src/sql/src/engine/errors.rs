//! What the query engine says went wrong, in our words: a stable code, one sentence, and the nearest name.

use super::names::of_twin;
use super::spelling::ambiguous;
use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use model::error::nearest;
use model::{Code, Error};

/// Carries an error of ours through the engine.
pub fn wrap(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Brings any error of the engine into our words. One of ours that went through it comes out as it was.
pub fn translate(error: DataFusionError) -> Error {
    if let Some(ours) = find_ours(&error) {
        return ours.clone();
    }
    match error.find_root() {
        DataFusionError::SQL(error, _) => match &**error {
            ParserError::RecursionLimitExceeded => {
                Error::new(Code::LimitExceeded, "the statement is nested too deeply")
            }
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                Error::new(Code::Syntax, message.clone())
            }
        },
        DataFusionError::ArrowError(error, _) => arrow(error),
        DataFusionError::SchemaError(error, _) => schema(error),
        DataFusionError::ResourcesExhausted(message) => Error::new(
            Code::LimitExceeded,
            format!("the query needs more memory than it may use: {}", first_line(message)),
        )
        .with_hint("ask for fewer rows or columns, or raise the limit on a query's memory"),
        DataFusionError::NotImplemented(message) => Error::new(Code::Unsupported, first_line(message)),
        DataFusionError::Plan(message) => plan(message),
        DataFusionError::Execution(message) => execution(message),
        DataFusionError::Internal(message) if message.starts_with("Failed to coerce") => plan(message),
        DataFusionError::Internal(message) if message.starts_with("Cannot run range queries") => Error::new(
            Code::Unsupported,
            "a window whose frame goes by values can not be ordered by a value of this type, such as an INTERVAL",
        )
        .with_hint("order by a number, a text, a date or a time, or give the frame in ROWS"),
        DataFusionError::Internal(message) => Error::internal(format!("the query engine: {}", first_line(message))),
        other => match other.strip_backtrace() {
            text if text.contains("regex parse error") => {
                Error::new(Code::InvalidStatement, "a regular expression, or its flags, can not be read")
            }
            text => Error::internal(format!("the query engine: {}", first_line(&text))),
        },
    }
}

/// Looks for an error of ours at any depth of wrapping.
fn find_ours(error: &DataFusionError) -> Option<&Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        source = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(&**inner),
            Some(DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner)) => Some(&**inner),
            Some(DataFusionError::Shared(inner)) => Some(&**inner),
            Some(DataFusionError::Collection(errors)) => errors.first().map(|e| e as _),
            Some(DataFusionError::ArrowError(inner, _)) => Some(&**inner),
            _ => match error.downcast_ref::<ArrowError>() {
                Some(ArrowError::ExternalError(inner)) => Some(&**inner),
                _ => error.source(),
            },
        };
    }
    None
}

fn arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::new(Code::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => {
            Error::new(Code::ValueOutOfRange, "the result of a computation does not fit its type")
        }
        ArrowError::CastError(message) if message.starts_with("Can't cast value") => {
            Error::new(Code::ValueOutOfRange, "a number does not fit the type that it is cast to")
        }
        ArrowError::CastError(message) | ArrowError::ParseError(message) => {
            Error::new(Code::WrongType, first_line(message))
        }
        ArrowError::InvalidArgumentError(message) if message.contains("too large to store in a Decimal") => {
            Error::new(Code::ValueOutOfRange, "the result of a computation does not fit its type")
        }
        ArrowError::InvalidArgumentError(message) | ArrowError::ComputeError(message) => {
            Error::new(Code::InvalidStatement, first_line(message))
        }
        ArrowError::NotYetImplemented(message) => Error::new(Code::Unsupported, first_line(message)),
        ArrowError::MemoryError(message) => Error::new(Code::LimitExceeded, first_line(message)),
        other => Error::internal(format!("the query engine: {}", first_line(&other.to_string()))),
    }
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields }
            if valid_fields.iter().any(|valid| of_twin(&valid.name) == Some(&field.name)) =>
        {
            ambiguous(&field.name)
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = Error::new(Code::NoSuchColumn, format!("column \"{}\" does not exist", field.name));
            match nearest(&field.name, valid_fields.iter().map(|f| f.name.as_str())) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(Code::InvalidStatement, format!("column \"{}\" could be of several tables", field.name))
                .with_hint("write the table's name before it")
        }
        other => Error::new(Code::InvalidStatement, first_line(&other.to_string())),
    }
}

fn plan(message: &str) -> Error {
    if let Some(unknown) = message.strip_prefix("Invalid function ") {
        let (name, hint) = unknown.split_once(".\n").unwrap_or((unknown, ""));
        let error =
            Error::new(Code::NoSuchFunction, format!("function \"{}\" does not exist", name.trim_matches('\'')));
        return match hint.trim_start_matches("Did you mean").trim().trim_matches(['\'', '?']) {
            "" => error,
            near => error.with_hint(format!("did you mean \"{near}\"?")),
        };
    }
    let message = first_line(message);
    // Ours, of a function of ours, in the words of the engine's own.
    let ours = message.split_once("External error: ").and_then(|(_, rest)| rest.split_once(" of these types"));
    if let Some((ours, _)) = ours {
        return Error::new(Code::WrongType, format!("{ours} of these types"));
    }
    let function = message.strip_prefix("Internal error: ").unwrap_or(&message).strip_prefix("Function ");
    if let Some((name, _)) = function.and_then(|rest| rest.split_once(" failed to match")) {
        let name = name.trim_matches('\'');
        return Error::new(Code::WrongType, format!("function \"{name}\" does not take values of these types"));
    }
    if message.contains("No value found for placeholder") {
        return no_value();
    }
    let is_type = ["type", "coerce", "coercion", "Cannot cast"].iter().any(|word| message.contains(word));
    Error::new(if is_type { Code::WrongType } else { Code::InvalidStatement }, message)
}

fn execution(message: &str) -> Error {
    let message = first_line(message);
    if message.contains("ivide by zero") {
        return Error::new(Code::DivisionByZero, "division by zero");
    }
    if message.contains("verflow") {
        return Error::new(Code::ValueOutOfRange, "the result of a computation does not fit its type");
    }
    Error::new(Code::InvalidStatement, message)
}

pub fn no_value() -> Error {
    Error::new(Code::Argument, "the query has a parameter that no value was given for")
}

/// Messages of the engine may go on with a trace or a whole plan.
fn first_line(message: &str) -> String {
    const CHARS_MAX: usize = 400;
    let line = message.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line.to_owned(),
    }
}
