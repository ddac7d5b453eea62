//! Statements on one key or a few, compiled once and carried out on the tx thread without the engine.
//!
//! In: a parsed statement and the schema; later, for each execution, raw MessagePack parameters. Out: a `PointPlan`,
//! kept under the text and the catalog version; later, operations as `crud::wire` has them, each with the bucket that
//! the router sends it to. What a plan does with its rows is the same as what the engine would do: whenever the
//! parameters leave that in doubt, `bind` hands the statement to the engine.

mod bind;
mod exact;
mod recognise;
#[cfg(test)]
mod tests;

pub use bind::{BoundPlan, Outcome};
pub use exact::{Exact, write_exact};
pub use recognise::recognise;
pub(super) use recognise::shown_type;

use crud::request::Projection;
use crud::wire::Verb;
use crud::{Layout, selection::Operator};
use model::ColumnType;
use std::sync::Arc;

/// Keys of one `IN` list, beyond which the engine is the better reader.
pub const KEYS_MAX: usize = 64;
/// Rows of one INSERT.
pub const ROWS_MAX: usize = 1000;

/// A compiled statement. Valid for the catalog version that its `layout` was read at.
#[derive(Debug)]
pub struct PointPlan {
    pub layout: Arc<Layout>,
    pub params_count: usize,
    pub action: Action,
}

#[derive(Debug)]
pub enum Action {
    Select(Select),
    /// `Verb::Insert`, `InsertOrSkip` or `Replace` of whole rows.
    Insert {
        verb: Verb,
        rows: Vec<Vec<Source>>,
    },
    Update {
        key: Vec<Source>,
        assignments: Vec<Assignment>,
    },
    Delete {
        keys: Vec<Vec<Source>>,
    },
}

#[derive(Debug)]
pub struct Select {
    /// Each a whole primary key.
    pub keys: Vec<Vec<Source>>,
    pub filters: Vec<Filter>,
    /// None: all columns in their order.
    pub projection: Option<Projection>,
    /// MessagePack of `[{name=, type=}, ...]`, as the engine would have it.
    pub metadata: Vec<u8>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The parameter at this place, from 0.
    Param(usize),
    /// MessagePack: in a key or a filter as the column stores it, elsewhere as users write it.
    Constant(Vec<u8>),
}

/// A further condition on the row, checked where the answer arrives.
#[derive(Debug)]
pub struct Filter {
    pub column: usize,
    pub ty: ColumnType,
    pub operator: Operator,
    pub value: Source,
}

/// `column = value`, or `column = column + value` (`-`).
#[derive(Debug)]
pub struct Assignment {
    pub column: usize,
    /// `=`, `+` or `-`, as update operations have it.
    pub operator: &'static str,
    pub value: Source,
}

impl PointPlan {
    pub fn is_write(&self) -> bool {
        !matches!(self.action, Action::Select(_))
    }

    /// MessagePack of `[{name=, type=}, ...]`; None for a statement that answers with a count.
    pub fn metadata(&self) -> Option<&[u8]> {
        match &self.action {
            Action::Select(select) => Some(&select.metadata),
            _ => None,
        }
    }
}
