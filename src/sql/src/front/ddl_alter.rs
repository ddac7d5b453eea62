//! ALTER TABLE, one change a statement: each is carried out by the whole cluster or not at all.

use super::ddl::{durability, finish, index_columns, no_foreign_keys};
use super::ddl_column::column;
use super::parse::{Source, fold};
use super::statement::{AlterDraft, SchemaAction, SchemaStatement};
use model::{Code, Error, Result};
use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, CheckConstraint, ColumnDef, ObjectName, RenameTableNameKind,
    TableConstraint, UniqueConstraint,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// `ALTER` was read.
pub(super) fn alter_table(source: &mut Source) -> Result<SchemaStatement> {
    let at = source.here();
    if !source.take_word("TABLE") {
        let what = format!("ALTER {}", source.parser.peek_token_ref().to_string().to_uppercase());
        return Err(source.unsupported(&what, at));
    }
    let if_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    source.take_word("ONLY");
    let table = source.object_name()?;
    let operation = source.ask(Parser::parse_alter_table_operation)?;
    if source.parser.peek_token_ref().token == Token::Comma {
        let error = source.unsupported("several changes in one ALTER TABLE", source.here());
        return Err(error.with_hint("write a statement for each"));
    }
    let alteration = Box::new(draft(source, operation)?);
    finish(source, SchemaAction::AlterTable { table, if_exists, alteration })
}

fn draft(source: &Source, operation: AlterTableOperation) -> Result<AlterDraft> {
    use AlterTableOperation as O;
    Ok(match operation {
        O::AddColumn { if_not_exists, column_def, column_position: None, .. } => {
            add_column(source, &column_def, if_not_exists)?
        }
        O::DropColumn { column_names, if_exists, drop_behavior: _, .. } => match &column_names[..] {
            [name] => AlterDraft::DropColumn { column: fold(name), if_exists },
            _ => return Err(source.unsupported("DROP COLUMN of several columns", None)),
        },
        O::RenameColumn { old_column_name, new_column_name } => {
            AlterDraft::RenameColumn { from: fold(&old_column_name), to: fold(&new_column_name) }
        }
        O::RenameTable { table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name) } => {
            AlterDraft::RenameTable { to: one_part(source, &name)? }
        }
        O::AlterColumn { column_name, op } => alter_column(source, fold(&column_name), op)?,
        O::AddConstraint { constraint, not_valid } => {
            source.refuse(not_valid, "NOT VALID")?;
            add_constraint(source, constraint)?
        }
        O::DropConstraint { if_exists, name, drop_behavior: _ } => {
            AlterDraft::DropConstraint { name: fold(&name), if_exists }
        }
        O::SetOptionsParens { options } => AlterDraft::SetDurability { durability: durability(source, &options)? },
        other => return Err(source.unsupported(&format!("ALTER TABLE ... {other}"), None)),
    })
}

fn one_part(source: &Source, name: &ObjectName) -> Result<super::statement::Name> {
    source.one_part(name)
}

fn add_column(source: &Source, definition: &ColumnDef, if_not_exists: bool) -> Result<AlterDraft> {
    let draft = column(source, definition)?;
    if draft.primary || draft.unique.is_some() || !draft.checks.is_empty() {
        let error = source.unsupported("ADD COLUMN with a constraint", draft.name.at);
        return Err(error.with_hint("add the column first, then the constraint with ADD CONSTRAINT"));
    }
    Ok(AlterDraft::AddColumn { column: draft.finish(false), if_not_exists })
}

fn alter_column(source: &Source, column: super::statement::Name, op: AlterColumnOperation) -> Result<AlterDraft> {
    Ok(match op {
        AlterColumnOperation::SetNotNull => AlterDraft::SetNotNull { column },
        AlterColumnOperation::DropNotNull => AlterDraft::DropNotNull { column },
        AlterColumnOperation::SetDefault { value } => AlterDraft::SetDefault { column, value },
        AlterColumnOperation::DropDefault => AlterDraft::DropDefault { column },
        other => {
            let error = source.unsupported(&format!("ALTER COLUMN ... {other}"), column.at);
            return Err(error.with_hint("add another column, UPDATE it from this one, drop this one, rename"));
        }
    })
}

fn add_constraint(source: &Source, constraint: TableConstraint) -> Result<AlterDraft> {
    match constraint {
        TableConstraint::Check(CheckConstraint { name, expr, .. }) => {
            Ok(AlterDraft::AddCheck { name: name.as_ref().map(fold), condition: *expr })
        }
        TableConstraint::Unique(UniqueConstraint { name, columns, .. }) => {
            Ok(AlterDraft::AddUnique { name: name.as_ref().map(fold), columns: index_columns(source, &columns)? })
        }
        TableConstraint::ForeignKey(_) => Err(no_foreign_keys()),
        TableConstraint::PrimaryKey(_) => {
            let message = "the primary key of a table can not be changed: rows are placed by it";
            Err(Error::new(Code::Unsupported, message).with_hint("make another table and INSERT ... SELECT into it"))
        }
        other => Err(source.unsupported(&format!("the constraint \"{other}\""), None)),
    }
}
