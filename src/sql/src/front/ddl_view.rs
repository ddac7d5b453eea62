//! CREATE VIEW.

use super::balance::balance;
use super::ddl::finish;
use super::parse::{Source, fold};
use super::statement::{SchemaAction, SchemaStatement};
use model::Result;
use sqlparser::ast::SetExpr;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// `CREATE [OR REPLACE] VIEW` was read.
pub(super) fn create_view(source: &mut Source, replace: bool) -> Result<SchemaStatement> {
    if source.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]) {
        return Err(source.unsupported("CREATE VIEW IF NOT EXISTS", None).with_hint("use CREATE OR REPLACE VIEW"));
    }
    let name = source.object_name()?;
    let mut columns = Vec::new();
    if source.parser.consume_token(&Token::LParen) {
        columns = source.ask(|p| p.parse_comma_separated(Parser::parse_identifier))?.iter().map(fold).collect();
        source.ask(|p| p.expect_token(&Token::RParen).map(|_| ()))?;
    }
    source.expect_word("AS")?;
    let mut query = source.ask(Parser::parse_query)?;
    let changes =
        matches!(&*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_));
    source.refuse(changes, "a view that changes data")?;
    if source.take_word("WITH") {
        return Err(source.unsupported("WITH CHECK OPTION or WITH NO DATA", None));
    }
    balance(&mut query);
    finish(source, SchemaAction::CreateView { name, columns, query, replace })
}
