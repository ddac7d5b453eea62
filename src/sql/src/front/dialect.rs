//! The dialect: PostgreSQL's, as the parser knows it, with `?` for parameters instead of JSON operators.

use super::parse::is_bare;
use sqlparser::ast::{Expr, Query, SetExpr, visit_expressions};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;
use std::any::TypeId;
use std::ops::ControlFlow;

/// PostgreSQL's rules, but for `?`. To the parser's own questions it passes for PostgreSQL.
#[derive(Debug)]
pub struct PicodataDialect;

/// Parts of the left side of an IN whose list begins with a subquery.
const OPERAND_PARTS_MAX: usize = 64;
/// Parentheses around a subquery that is the first of a list.
const PARENTHESES_MAX: usize = 16;

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

/// Whether a list in parentheses, `skipped` tokens ahead, begins with a query in parentheses of its own that is not all of it.
fn begins_with_scalar(parser: &mut Parser, skipped: usize) -> bool {
    use Keyword as K;
    let opens = |at: &usize| parser.peek_nth_token_ref(skipped + at).token == Token::LParen;
    let opened = (0..PARENTHESES_MAX).take_while(opens).count();
    let first = &parser.peek_nth_token_ref(skipped + opened).token;
    if opened < 2
        || !matches!(first, Token::Word(word) if matches!(word.keyword, K::SELECT | K::WITH | K::VALUES | K::TABLE))
    {
        return false;
    }
    let mut is_scalar = false;
    // Fails whatever it finds, so that the parser goes back to where it was.
    let _ = parser.maybe_parse(|ahead| -> Result<(), ParserError> {
        (0..skipped + opened).for_each(|_| ahead.advance_token());
        let mut depth = opened - 1;
        while depth > 0 {
            ahead.advance_token();
            match ahead.get_current_token().token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::EOF => break,
                _ => {}
            }
        }
        is_scalar = depth == 0 && ahead.peek_token_ref().token != Token::RParen;
        Err(ParserError::ParserError(String::new()))
    });
    is_scalar
}

/// Whether an operand is copied in no time; a chain of INs copies each of its parts again and again.
fn is_small(expr: &Expr) -> bool {
    let mut left = OPERAND_PARTS_MAX;
    let counted = visit_expressions(expr, |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    counted.is_continue()
}

/// What stands in the parentheses of an IN, after the first one.
fn within(parser: &mut Parser, expr: Expr, negated: bool) -> Result<Expr, ParserError> {
    let expr = Box::new(expr);
    let list = match parser.maybe_parse(|p| p.parse_query())? {
        Some(subquery) if parser.peek_token_ref().token == Token::RParen => {
            parser.advance_token();
            return Ok(Expr::InSubquery { expr, subquery, negated });
        }
        Some(query) => {
            let mut first = scalar(*query).map_or_else(|| parser.expected_ref(")", parser.peek_token_ref()), Ok)?;
            loop {
                match parser.get_next_precedence()? {
                    0 => break,
                    precedence => first = parser.parse_infix(first, precedence)?,
                }
            }
            let mut list = vec![first];
            if parser.consume_token(&Token::Comma) {
                list.extend(parser.parse_comma_separated(Parser::parse_expr)?);
            }
            list
        }
        None => parser.parse_comma_separated(Parser::parse_expr)?,
    };
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::InList { expr, list, negated })
}

/// A query in parentheses with nothing after them is a value.
fn scalar(query: Query) -> Option<Expr> {
    let is_bare = is_bare(&query);
    match *query.body {
        SetExpr::Query(inner) if is_bare => Some(Expr::Subquery(inner)),
        _ => None,
    }
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

    /// `a IN ((SELECT ...), 7)`: the parser itself takes what begins like that for a subquery.
    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let is = |at: usize, keyword: Keyword| {
            let token = &parser.peek_nth_token_ref(at).token;
            matches!(token, Token::Word(word) if word.keyword == keyword)
        };
        let negated = is(0, Keyword::NOT);
        let at = usize::from(negated);
        if !is(at, Keyword::IN) || !begins_with_scalar(parser, at + 1) || !is_small(expr) {
            return None;
        }
        (0..at + 2).for_each(|_| parser.advance_token());
        Some(within(parser, expr.clone(), negated))
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
