//! The names that WITH defines, and where they can be seen.
//!
//! The planner takes a name that is defined around a query once more in it for a mistake. The inner one gets a name that
//! nobody sees, and tables in FROM that mean it keep the old one as their alias.

use super::{Speller, name_outputs, twins};
use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{Ident, ObjectNamePart, Query, TableAlias, TableFactor, With};

/// A name of a WITH, and what the planner knows it as.
#[derive(Clone)]
struct Defined {
    name: String,
    planned: Ident,
    /// Names that several of its columns have.
    twins: Vec<String>,
    /// Whether it is defined behind the place that the walk is at.
    is_later: bool,
}

/// The definitions that can be seen, a list for each query around.
#[derive(Default)]
pub struct Scopes {
    visible: Vec<Vec<Defined>>,
    /// WITH clauses of the queries around, which have been walked already.
    held: Vec<Option<With>>,
}

impl Scopes {
    /// Whether a WITH around gives the name to something.
    pub fn is_defined(&self, name: &str) -> bool {
        self.definition(name).is_some()
    }

    /// The names that several columns of what WITH calls so have.
    pub fn twins_of(&self, name: &str) -> Vec<String> {
        self.definition(name).map_or(Vec::new(), |defined| defined.twins.clone())
    }

    /// Whether this is a query in a query.
    pub fn is_nested(&self) -> bool {
        self.visible.len() > 1
    }

    pub fn leave(&mut self, query: &mut Query) {
        self.visible.pop();
        query.with = self.held.pop().flatten();
    }

    /// Whether a table in FROM is one of them; it is called what the planner knows it as then.
    ///
    /// Errors: `Unsupported` for one that is defined further on.
    pub fn resolve(&self, factor: &mut TableFactor) -> Result<bool> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return Ok(false) };
        let [ObjectNamePart::Identifier(ident)] = &mut name.0[..] else { return Ok(false) };
        let Some(defined) = self.definition(&fold(ident).text) else { return Ok(false) };
        if defined.is_later {
            let message =
                format!("\"{}\" of WITH RECURSIVE is read before its definition: not supported", defined.name);
            return Err(Error::new(Code::Unsupported, message).with_hint("define it first"));
        }
        if fold(&defined.planned).text != defined.name {
            let written = std::mem::replace(ident, defined.planned.clone());
            alias.get_or_insert(TableAlias { explicit: true, name: written, columns: Vec::new(), at: None });
        }
        Ok(true)
    }

    fn definition(&self, name: &str) -> Option<&Defined> {
        self.visible.iter().rev().find_map(|scope| scope.iter().rev().find(|defined| defined.name == name))
    }
}

impl Speller<'_> {
    /// Walks what a query defines, each with what it can see, and takes it out until the query is left.
    pub fn enter_scope(&mut self, query: &mut Query) -> Result<()> {
        let mut with = query.with.take();
        let mut all = Vec::new();
        if let Some(with) = &mut with {
            for cte in &mut with.cte_tables {
                let twins = twins::of_query(&cte.query, Some(&cte.alias));
                name_outputs(&mut cte.query, Some(&mut cte.alias))?;
                let name = fold(&cte.alias.name).text;
                if self.scopes.is_defined(&name) {
                    self.names += 1;
                    cte.alias.name = Ident::with_quote('"', format!("with:{}", self.names));
                }
                all.push(Defined { name, planned: cte.alias.name.clone(), twins, is_later: with.recursive });
            }
        }
        let level = self.scopes.visible.len();
        let mut walked = Ok(());
        match &mut with {
            // Each sees those before it, and itself.
            Some(with) if with.recursive => {
                self.scopes.visible.push(all);
                for (at, cte) in with.cte_tables.iter_mut().enumerate() {
                    self.scopes.visible[level][at].is_later = false;
                    walked = walked.and_then(|()| walk::change(&mut cte.query, self));
                }
            }
            // Each sees those before it.
            Some(with) => {
                self.scopes.visible.push(Vec::new());
                for (cte, defined) in with.cte_tables.iter_mut().zip(all) {
                    walked = walked.and_then(|()| walk::change(&mut cte.query, self));
                    self.scopes.visible[level].push(defined);
                }
            }
            None => self.scopes.visible.push(all),
        }
        self.scopes.held.push(with);
        walked
    }
}
