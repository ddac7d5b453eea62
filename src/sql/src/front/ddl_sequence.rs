//! Sequences: CREATE SEQUENCE, and the options of identity columns.

use super::ddl::finish;
use super::literal;
use super::parse::Source;
use super::statement::{SchemaAction, SchemaStatement};
use model::{Code, ColumnType, Error, Result, Sequence, Value};
use sqlparser::ast::{Expr, SequenceOptions};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;

/// What was said about a sequence; the rest follows from its direction and type.
#[derive(Default)]
struct Options {
    start: Option<i64>,
    increment: Option<i64>,
    min: Option<i64>,
    max: Option<i64>,
    cache: Option<i64>,
}

impl Options {
    fn sequence(&self, ty: ColumnType) -> Result<Sequence> {
        let (lowest, highest) = match ty {
            ColumnType::SmallInt => (i16::MIN.into(), i16::MAX.into()),
            ColumnType::Integer => (i32::MIN.into(), i32::MAX.into()),
            _ => (i64::MIN, i64::MAX),
        };
        let increment = self.increment.unwrap_or(1);
        let min = self.min.unwrap_or(if increment < 0 { lowest } else { 1 });
        let max = self.max.unwrap_or(if increment < 0 { -1 } else { highest });
        let cache = self.cache.map_or(Ok(model::sequence::CACHE_DEFAULT), u32::try_from);
        let cache = cache.map_err(|_| Error::new(Code::InvalidStatement, "CACHE is a number from 1 on"))?;
        let start = self.start.unwrap_or(if increment < 0 { max } else { min });
        let sequence = Sequence { id: 0, start, increment, min, max, cache };
        if min < lowest || max > highest {
            return Err(Error::new(
                Code::InvalidStatement,
                format!("a sequence of {ty} ends at {lowest} and {highest}"),
            ));
        }
        sequence.validate()?;
        Ok(sequence)
    }
}

/// The sequence of an identity column, from the parser's options.
pub(super) fn identity_sequence(source: &Source, ty: ColumnType, written: &[SequenceOptions]) -> Result<Sequence> {
    let mut options = Options::default();
    for option in written {
        match option {
            SequenceOptions::StartWith(value, _) => options.start = Some(integer(value)?),
            SequenceOptions::IncrementBy(value, _) => options.increment = Some(integer(value)?),
            SequenceOptions::MinValue(value) => options.min = value.as_ref().map(integer).transpose()?,
            SequenceOptions::MaxValue(value) => options.max = value.as_ref().map(integer).transpose()?,
            SequenceOptions::Cache(value) => options.cache = Some(integer(value)?),
            // The parser's flag is true for NO CYCLE.
            SequenceOptions::Cycle(no) => source.refuse(!no, "CYCLE")?,
        }
    }
    options.sequence(ty)
}

fn integer(expr: &Expr) -> Result<i64> {
    match literal::constant(expr) {
        Some(Ok(Value::Integer(integer))) => Ok(integer),
        _ => Err(Error::new(Code::InvalidStatement, format!("{expr} is no whole number of 64 bits"))),
    }
}

/// `CREATE SEQUENCE` was read; its options come in any order.
pub(super) fn create_sequence(source: &mut Source) -> Result<SchemaStatement> {
    let if_not_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = source.object_name()?;
    let (mut options, mut ty) = (Options::default(), ColumnType::BigInt);
    loop {
        if source.take_word("AS") {
            ty = super::types::column_type(&source.ask(Parser::parse_data_type)?)?;
            if !ty.is_integer() {
                return Err(Error::new(Code::WrongType, format!("a sequence is of an integer type, not {ty}")));
            }
        } else if source.take_word("START") {
            source.take_word("WITH");
            options.start = Some(number(source)?);
        } else if source.take_word("INCREMENT") {
            source.take_word("BY");
            options.increment = Some(number(source)?);
        } else if source.take_word("MINVALUE") {
            options.min = Some(number(source)?);
        } else if source.take_word("MAXVALUE") {
            options.max = Some(number(source)?);
        } else if source.take_word("CACHE") {
            options.cache = Some(number(source)?);
        } else if source.take_word("NO") {
            if !["MINVALUE", "MAXVALUE", "CYCLE"].into_iter().any(|word| source.take_word(word)) {
                return source.expected("MINVALUE, MAXVALUE or CYCLE");
            }
        } else if source.take_word("CYCLE") {
            return Err(source.unsupported("CYCLE", None).with_hint("a number that comes again is no longer unique"));
        } else if source.take_word("OWNED") {
            return Err(source.unsupported("OWNED BY", None).with_hint("use GENERATED ... AS IDENTITY in the table"));
        } else {
            break;
        }
    }
    let sequence = options.sequence(ty)?;
    finish(source, SchemaAction::CreateSequence { name, sequence, if_not_exists })
}

fn number(source: &mut Source) -> Result<i64> {
    let expr = source.ask(Parser::parse_number)?;
    integer(&expr)
}
