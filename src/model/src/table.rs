//! Table definitions: what the catalog replicates, the SQL room plans on, and the module makes box spaces from.

use crate::error::{Code, Error, Result, nearest};
use crate::ids::{TableId, TierName};
use crate::program::{Program, Surroundings};
use crate::sequence::Sequence;
use crate::types::ColumnType;
use crate::value::Value;
use serde::{Deserialize, Serialize};

/// Which of the host's engines keeps a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    Memtx,
    Vinyl,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Engine::Memtx => "memtx",
            Engine::Vinyl => "vinyl",
        }
    }
}

/// What a write waits for before it is answered, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Durability {
    /// The master's log alone: a change of master can lose it.
    Local,
    /// The logs of all members of the replicaset that are in sync.
    #[default]
    Replicated,
}

impl Durability {
    pub const ALL: [Durability; 2] = [Durability::Local, Durability::Replicated];

    pub fn name(self) -> &'static str {
        match self {
            Durability::Replicated => "replicated",
            Durability::Local => "local",
        }
    }

    /// By its name, in any case.
    pub fn named(name: &str) -> Option<Durability> {
        Durability::ALL.into_iter().find(|durability| durability.name().eq_ignore_ascii_case(name))
    }
}

/// Where a table's rows live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// Every row on every instance, written through the Raft log.
    Global,
    /// Each row in the bucket that `key` (positions of columns, all part of the primary key) hashes to, on the
    /// replicaset of `tier` that owns the bucket.
    Sharded { key: Vec<usize>, tier: TierName },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    pub nullable: bool,
    /// What INSERT puts where it names no value.
    pub default: Option<Value>,
    /// The same, where it is another one in each row.
    #[serde(default)]
    pub generated: Option<Generated>,
    /// Users do not see it: the key of a table that was made without one, or a column that was dropped.
    #[serde(default)]
    pub hidden: bool,
    /// The column came later than the table: rows that were written before end in front of it, and have this value.
    #[serde(default)]
    pub added: Option<Value>,
    /// The host's format takes NULL though the column does not: the storage checks.
    #[serde(default)]
    pub loose: bool,
}

/// A default that is computed for each row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Generated {
    Computed(Program),
    /// The next number of a sequence that belongs to the column. `always`: INSERT must not name a value.
    Identity {
        sequence: Sequence,
        always: bool,
    },
    /// The next number of a sequence with a name of its own.
    NextOf {
        name: String,
        sequence: Sequence,
    },
}

impl Column {
    /// A column without a default.
    pub fn new(name: impl Into<String>, ty: ColumnType, nullable: bool) -> Self {
        let name = name.into();
        Self { name, ty, nullable, default: None, generated: None, hidden: false, added: None, loose: false }
    }

    /// Whether its numbers are the cluster's alone to give.
    pub fn is_always_generated(&self) -> bool {
        matches!(self.generated, Some(Generated::Identity { always: true, .. }))
    }

    /// Whether box itself lets NULL into the column.
    pub fn is_nullable_in_box(&self) -> bool {
        self.nullable || self.loose
    }
}

impl Generated {
    /// The sequence that numbers come from.
    pub fn sequence(&self) -> Option<&Sequence> {
        match self {
            Generated::Computed(_) => None,
            Generated::Identity { sequence, .. } | Generated::NextOf { sequence, .. } => Some(sequence),
        }
    }
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub program: Program,
}

/// A secondary index. In a sharded table it is local to each replicaset, so a unique one must contain the sharding key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The host's index number: from 1, not reused while the table lives.
    pub id: u32,
    pub name: String,
    /// Positions of the columns, in the order of the key.
    pub columns: Vec<usize>,
    pub unique: bool,
}

/// Where a table stands in its life. Only an operable one can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableState {
    /// Announced; the masters are making its space.
    Preparing,
    Operable,
    /// Being taken down; its space may be gone on some masters already.
    Dropping,
}

/// A table. In box, a sharded table's tuple starts with the bucket id and its primary index is (bucket id, primary
/// key); a global table's tuple is the row itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub id: TableId,
    pub name: String,
    /// The catalog version that last changed this definition.
    pub version: u64,
    pub engine: Engine,
    pub distribution: Distribution,
    pub columns: Vec<Column>,
    /// Positions of the columns, in the order of the key.
    pub primary_key: Vec<usize>,
    pub indexes: Vec<Index>,
    pub state: TableState,
    /// What every row has to meet, the one that is being added by a pending change included.
    #[serde(default)]
    pub checks: Vec<Check>,
    #[serde(default)]
    pub durability: Durability,
}

/// The hidden primary key of a table that was made without one.
pub const ROW_ID: &str = "_pico_row_id";

/// Bounds on definitions, so that no statement makes the catalog grow without limit.
pub const COLUMNS_MAX: usize = 1600;
pub const NAME_BYTES_MAX: usize = 255;
pub const CHECKS_MAX: usize = 100;

impl Table {
    pub fn is_global(&self) -> bool {
        self.distribution == Distribution::Global
    }

    /// The sharding key's column positions; None for a global table.
    pub fn sharding_key(&self) -> Option<&[usize]> {
        match &self.distribution {
            Distribution::Global => None,
            Distribution::Sharded { key, .. } => Some(key),
        }
    }

    /// How many fields stand before the first column in a stored tuple: the bucket id, for sharded tables.
    pub fn stored_offset(&self) -> usize {
        usize::from(!self.is_global())
    }

    /// The position of a column that users see, by its exact name.
    pub fn column_position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name && !column.hidden)
    }

    /// The columns that users see.
    pub fn visible(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|at| !self.columns[*at].hidden)
    }

    /// Whether users see all columns.
    pub fn is_all_visible(&self) -> bool {
        self.columns.iter().all(|column| !column.hidden)
    }

    /// Whether the table was made without a primary key of its own.
    pub fn has_hidden_key(&self) -> bool {
        self.primary_key.iter().any(|at| self.columns[*at].hidden)
    }

    /// Whether rows must be checked for more than what box's format says.
    pub fn is_checked(&self) -> bool {
        !self.checks.is_empty() || self.columns.iter().any(|column| column.loose && !column.nullable)
    }

    /// Checks a row's values against NOT NULL and the CHECK constraints.
    ///
    /// Errors: `NullViolation`, `CheckViolation`, and those of the expressions.
    pub fn check_row(&self, row: &dyn Surroundings) -> Result<()> {
        for (position, column) in self.columns.iter().enumerate() {
            if column.loose && !column.nullable && row.column(position)?.is_null() {
                let message = format!("column \"{}\" of table \"{}\" can not be null", column.name, self.name);
                return Err(Error::new(Code::NullViolation, message));
            }
        }
        for check in &self.checks {
            // Unknown is not false.
            if check.program.evaluate(row)? == Value::Boolean(false) {
                let message =
                    format!("a row of table \"{}\" violates the check constraint \"{}\"", self.name, check.name);
                return Err(Error::new(Code::CheckViolation, message)
                    .with_hint(format!("it has to meet {}", check.program.text)));
            }
        }
        Ok(())
    }

    /// The position of a column that users see, or the error that names the nearest one.
    pub fn require_column(&self, name: &str) -> Result<usize> {
        self.column_position(name).ok_or_else(|| {
            let error = Error::new(Code::NoSuchColumn, format!("table \"{}\" has no column \"{name}\"", self.name));
            match nearest(name, self.visible().map(|at| self.columns[at].name.as_str())) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    /// Checks what must hold for any table before it enters the catalog.
    ///
    /// Errors: `InvalidStatement` with the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
        check_name("table", &self.name)?;
        if self.columns.is_empty() || self.columns.len() > COLUMNS_MAX {
            return invalid(format!("a table has 1 to {COLUMNS_MAX} columns, not {}", self.columns.len()));
        }
        for (at, column) in self.columns.iter().enumerate() {
            check_name("column", &column.name)?;
            if self.columns[..at].iter().any(|other| other.name == column.name) {
                return invalid(format!("column \"{}\" is named twice", column.name));
            }
        }
        if self.primary_key.is_empty() {
            return invalid(format!("table \"{}\" has no primary key", self.name));
        }
        self.validate_key("primary key", &self.primary_key)?;
        for &position in &self.primary_key {
            if self.columns[position].nullable {
                return invalid(format!(
                    "column \"{}\" is part of the primary key and can not be nullable",
                    self.columns[position].name
                ));
            }
        }
        if let Distribution::Sharded { key, tier } = &self.distribution {
            check_name("tier", tier.as_str())?;
            self.validate_key("sharding key", key)?;
            for position in key {
                if !self.primary_key.contains(position) {
                    return Err(Error::new(
                        Code::InvalidStatement,
                        format!("sharding column \"{}\" is not part of the primary key", self.columns[*position].name),
                    )
                    .with_hint("a key can only be unique in the whole cluster when it contains the sharding key: add the column to PRIMARY KEY"));
                }
            }
        }
        if self.is_global() && self.durability == Durability::Local {
            let message = "a global table is written through the log of the cluster: its durability is 'replicated'";
            return Err(Error::new(Code::InvalidStatement, message));
        }
        self.validate_checks()?;
        self.indexes.iter().try_for_each(|index| self.validate_index(index))
    }

    fn validate_checks(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
        if self.checks.len() > CHECKS_MAX {
            return invalid(format!("a table has {CHECKS_MAX} check constraints at most"));
        }
        for (at, check) in self.checks.iter().enumerate() {
            check_name("constraint", &check.name)?;
            if self.checks[..at].iter().any(|other| other.name == check.name) {
                return invalid(format!("constraint \"{}\" is named twice", check.name));
            }
            if check.program.columns().any(|column| column >= self.columns.len()) {
                return invalid(format!("constraint \"{}\" reads a column that is not there", check.name));
            }
        }
        Ok(())
    }

    /// Checks an index against this table.
    pub fn validate_index(&self, index: &Index) -> Result<()> {
        check_name("index", &index.name)?;
        self.validate_key("index", &index.columns)?;
        let covers_sharding = self.sharding_key().unwrap_or(&[]).iter().all(|p| index.columns.contains(p));
        if index.unique && !covers_sharding {
            return Err(Error::new(
                Code::InvalidStatement,
                format!("unique index \"{}\" does not contain the sharding key", index.name),
            )
            .with_hint("each replicaset only sees its own rows: add the sharding columns to the index"));
        }
        Ok(())
    }

    fn validate_key(&self, what: &str, positions: &[usize]) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
        if positions.is_empty() {
            return invalid(format!("the {what} of table \"{}\" names no column", self.name));
        }
        for (at, position) in positions.iter().enumerate() {
            let Some(column) = self.columns.get(*position) else {
                return invalid(format!(
                    "the {what} of table \"{}\" names column {position}, which it does not have",
                    self.name
                ));
            };
            if positions[..at].contains(position) {
                return invalid(format!("the {what} names column \"{}\" twice", column.name));
            }
            if column.ty == ColumnType::Json {
                return invalid(format!("the {what} can not contain \"{}\" of type json", column.name));
            }
        }
        Ok(())
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let message = format!("the name of a {what} has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
        return Err(Error::new(Code::InvalidStatement, message));
    }
    if name.contains(['\0', '\n']) {
        return Err(Error::new(Code::InvalidStatement, format!("the name of a {what} contains a control character")));
    }
    Ok(())
}
