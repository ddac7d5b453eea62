//! The dialect: PostgreSQL's, as the parser knows it, with `?` for parameters instead of JSON operators.

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;
use std::any::TypeId;

/// PostgreSQL's rules, but for `?`. To the parser's own questions it passes for PostgreSQL.
#[derive(Debug)]
pub struct PicodataDialect;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Answers like PostgreSQL's dialect for the listed yes/no questions.
macro_rules! as_postgres {
    ($($question:ident)*) => {
        $(fn $question(&self) -> bool { POSTGRES.$question() })*
    };
}

fn begins_expression(keyword: Keyword) -> bool {
    use Keyword as K;
    matches!(
        keyword,
        K::CASE
            | K::CAST
            | K::NOT
            | K::ARRAY
            | K::INTERVAL
            | K::CURRENT_DATE
            | K::CURRENT_TIME
            | K::CURRENT_TIMESTAMP
            | K::LOCALTIME
            | K::LOCALTIMESTAMP
    )
}

fn names_function(keyword: Keyword) -> bool {
    use Keyword as K;
    matches!(
        keyword,
        K::TRY_CAST
            | K::SAFE_CAST
            | K::CONVERT
            | K::EXTRACT
            | K::CEIL
            | K::FLOOR
            | K::POSITION
            | K::SUBSTR
            | K::SUBSTRING
            | K::OVERLAY
    )
}

impl Dialect for PicodataDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    /// What begins an expression of its own form is no name. Otherwise the parser reads a text with a slip in it both
    /// ways, at every level of nesting: 40 nested CASEs without END would take it years.
    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        begins_expression(keyword) || names_function(keyword) || POSTGRES.is_reserved_for_identifier(keyword)
    }

    /// The names of the standard's special functions are good names for columns all the same.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else { return None };
        let is_name = names_function(word.keyword) && parser.peek_nth_token_ref(1).token != Token::LParen;
        is_name.then(|| parser.parse_identifier().map(Expr::Identifier))
    }

    /// `a=?` is a comparison with a parameter, not an operator of its own.
    fn is_custom_operator_part(&self, ch: char) -> bool {
        ch != '?' && POSTGRES.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    as_postgres! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr
        supports_create_index_with_clause allow_extract_custom allow_extract_single_quotes
        supports_bitwise_shift_operators supports_nested_comments supports_string_escape_constant
        supports_numeric_literal_underscores supports_array_typedef_with_brackets supports_notnull_operator
        supports_interval_options supports_insert_table_alias supports_select_wildcard_with_alias
        supports_comma_separated_trim
    }
}
