//! What a text asks for, once it has been parsed: our own statements around the parser's queries and expressions.
//!
//! Names are folded (lower case unless they were quoted) and know their place in the text. Nothing here has been
//! checked against the schema yet.

use super::position::Position;
use model::{Column, ColumnType, Distribution, Durability, Engine, Generated, Sequence, Table, Value};
use sqlparser::ast::{Expr, Query, SelectItem, TableWithJoins, With};

/// A folded name and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    pub text: String,
    pub at: Option<Position>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Query(Box<Query>),
    /// What is explained is never an EXPLAIN or a schema change.
    Explain {
        analyze: bool,
        statement: Box<Statement>,
    },
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Schema(SchemaStatement),
    /// `BEGIN; ...; COMMIT`: none of them is one itself.
    Transaction(Vec<Statement>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    pub table: Name,
    pub alias: Option<Name>,
    /// None: all columns in their order.
    pub columns: Option<Vec<Name>>,
    pub source: InsertSource,
    pub on_conflict: OnConflict,
    /// The columns of `ON CONFLICT (...)`, which have to be the primary key.
    pub conflict_target: Option<Vec<Name>>,
    /// `OVERRIDING SYSTEM VALUE`: columns that are GENERATED ALWAYS take what is given.
    pub overriding: bool,
    pub returning: Option<Vec<SelectItem>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    /// Rows of equal length; None stands for DEFAULT.
    Values(Vec<Vec<Option<Expr>>>),
    /// `DEFAULT VALUES`
    Defaults,
    Query(Box<Query>),
}

/// What happens to a row whose primary key is there already.
#[derive(Clone, Debug, PartialEq)]
pub enum OnConflict {
    Fail,
    Skip,
    Replace,
    /// `DO UPDATE SET ... [WHERE ...]`, over the row that is there and `excluded`, the one that was to be inserted.
    Update {
        assignments: Vec<Assignment>,
        selection: Option<Box<Expr>>,
    },
}

/// A column and its new value; None stands for DEFAULT.
pub type Assignment = (Name, Option<Expr>);

#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// What the expressions may read by names of its own.
    pub with: Option<With>,
    pub table: Name,
    pub alias: Option<Name>,
    pub assignments: Vec<Assignment>,
    /// `FROM ...`: tables that the expressions may read.
    pub from: Vec<TableWithJoins>,
    pub selection: Option<Expr>,
    pub returning: Option<Vec<SelectItem>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// What the condition may read by names of its own.
    pub with: Option<With>,
    pub table: Name,
    pub alias: Option<Name>,
    /// `USING ...`: tables that the condition may read.
    pub using: Vec<TableWithJoins>,
    pub selection: Option<Expr>,
    pub returning: Option<Vec<SelectItem>>,
}

/// A schema change and how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaStatement {
    pub action: SchemaAction,
    /// From `OPTION (TIMEOUT = s)`.
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SchemaAction {
    /// The definition is complete and valid; ids and versions in it are 0.
    CreateTable {
        table: Table,
        if_not_exists: bool,
    },
    DropTable {
        table: Name,
        if_exists: bool,
        cascade: bool,
    },
    CreateIndex {
        name: Name,
        table: Name,
        columns: Vec<Name>,
        unique: bool,
        if_not_exists: bool,
    },
    /// `table` when `ON table` was written; otherwise the name is looked for in all tables.
    DropIndex {
        name: Name,
        table: Option<Name>,
        if_exists: bool,
    },
    Truncate {
        table: Name,
        if_exists: bool,
    },
    AlterTable {
        table: Name,
        if_exists: bool,
        alteration: Box<AlterDraft>,
    },
    CreateView {
        name: Name,
        /// Empty: as the query names them.
        columns: Vec<Name>,
        query: Box<Query>,
        replace: bool,
    },
    DropView {
        name: Name,
        if_exists: bool,
        cascade: bool,
    },
    CreateSequence {
        name: Name,
        sequence: Sequence,
        if_not_exists: bool,
    },
    DropSequence {
        name: Name,
        if_exists: bool,
    },
}

/// A change of a table whose names have not been looked up yet.
#[derive(Clone, Debug, PartialEq)]
pub enum AlterDraft {
    AddColumn { column: Column, if_not_exists: bool },
    DropColumn { column: Name, if_exists: bool },
    RenameColumn { from: Name, to: Name },
    RenameTable { to: Name },
    SetDefault { column: Name, value: Expr },
    DropDefault { column: Name },
    SetNotNull { column: Name },
    DropNotNull { column: Name },
    AddCheck { name: Option<Name>, condition: Expr },
    AddUnique { name: Option<Name>, columns: Vec<Name> },
    DropConstraint { name: Name, if_exists: bool },
    SetDurability { durability: Durability },
}

/// A column of CREATE TABLE, before keys and clauses have had their say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnDraft {
    pub name: Name,
    pub ty: ColumnType,
    /// None: nothing was written.
    pub nullable: Option<bool>,
    pub default: Option<DefaultDraft>,
    pub primary: bool,
    /// The name of the constraint, where it has one.
    pub unique: Option<Option<Name>>,
    pub checks: Vec<(Option<Name>, Expr)>,
}

/// A default as it was written: one value for all rows, or another one for each.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DefaultDraft {
    Constant(Value),
    Generated(Generated),
}

/// The clauses after the columns of CREATE TABLE.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct TableClauses {
    pub engine: Option<Engine>,
    pub distribution: Option<DistributionDraft>,
    pub durability: Option<Durability>,
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum DistributionDraft {
    Globally,
    By { key: Vec<Name>, tier: Option<Name> },
}

impl Statement {
    /// What the statement is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Statement::Query(_) => "SELECT",
            Statement::Explain { .. } => "EXPLAIN",
            Statement::Insert(_) => "INSERT",
            Statement::Update(_) => "UPDATE",
            Statement::Delete(_) => "DELETE",
            Statement::Transaction(_) => "BEGIN",
            Statement::Schema(schema) => match &schema.action {
                SchemaAction::CreateTable { .. } => "CREATE TABLE",
                SchemaAction::DropTable { .. } => "DROP TABLE",
                SchemaAction::CreateIndex { .. } => "CREATE INDEX",
                SchemaAction::DropIndex { .. } => "DROP INDEX",
                SchemaAction::Truncate { .. } => "TRUNCATE",
                SchemaAction::AlterTable { .. } => "ALTER TABLE",
                SchemaAction::CreateView { .. } => "CREATE VIEW",
                SchemaAction::DropView { .. } => "DROP VIEW",
                SchemaAction::CreateSequence { .. } => "CREATE SEQUENCE",
                SchemaAction::DropSequence { .. } => "DROP SEQUENCE",
            },
        }
    }
}

/// The tier of a table that names none.
pub(super) const DEFAULT_TIER: &str = "default";

impl DistributionDraft {
    /// The distribution with its columns found by `position`.
    pub(super) fn resolve<E>(self, mut position: impl FnMut(&Name) -> Result<usize, E>) -> Result<Distribution, E> {
        Ok(match self {
            DistributionDraft::Globally => Distribution::Global,
            DistributionDraft::By { key, tier } => Distribution::Sharded {
                key: key.iter().map(&mut position).collect::<Result<_, E>>()?,
                tier: tier.map_or(DEFAULT_TIER.to_owned(), |name| name.text).into(),
            },
        })
    }
}
