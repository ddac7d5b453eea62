//! The names that WITH defines, and where they can be seen.
//!
//! The planner takes a name that is defined around a query once more in it for a mistake. The inner one gets a name that
//! nobody sees, and tables in FROM that mean it keep the old one as their alias.

use super::{Speller, name_outputs};
use crate::front::parse::fold;
use crate::walk;
use model::Result;
use sqlparser::ast::{Ident, ObjectNamePart, Query, TableAlias, TableFactor, With};

/// A name of a WITH, and what the planner knows it as.
#[derive(Clone)]
struct Defined {
    name: String,
    planned: Ident,
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

    /// Whether this is a query in a query.
    pub fn is_nested(&self) -> bool {
        self.visible.len() > 1
    }

    pub fn leave(&mut self, query: &mut Query) {
        self.visible.pop();
        query.with = self.held.pop().flatten();
    }

    /// Whether a table in FROM is one of them; it is called what the planner knows it as then.
    pub fn resolve(&self, factor: &mut TableFactor) -> bool {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return false };
        let [ObjectNamePart::Identifier(ident)] = &mut name.0[..] else { return false };
        let Some(defined) = self.definition(&fold(ident).text) else { return false };
        if fold(&defined.planned).text != defined.name {
            let written = std::mem::replace(ident, defined.planned.clone());
            alias.get_or_insert(TableAlias { explicit: true, name: written, columns: Vec::new(), at: None });
        }
        true
    }

    fn definition(&self, name: &str) -> Option<&Defined> {
        self.visible.iter().rev().find_map(|scope| scope.iter().rev().find(|defined| defined.name == name))
    }
}

impl Speller<'_> {
    /// Walks what a query defines, each with what it can see, and takes it out until the query is left.
    pub fn enter_scope(&mut self, query: &mut Query) -> Result<()> {
        let mut with = query.with.take();
        let mut visible = Vec::new();
        if let Some(with) = &mut with {
            let mut all = Vec::with_capacity(with.cte_tables.len());
            for cte in &mut with.cte_tables {
                name_outputs(&mut cte.query);
                let name = fold(&cte.alias.name).text;
                if self.scopes.is_defined(&name) {
                    self.names += 1;
                    cte.alias.name = Ident::new(format!("__with_{}", self.names));
                }
                all.push(Defined { name, planned: cte.alias.name.clone() });
            }
            if with.recursive {
                visible.clone_from(&all);
            }
            for (cte, defined) in with.cte_tables.iter_mut().zip(all) {
                // It sees those before it, and itself where it may be recursive.
                self.scopes.visible.push(visible.clone());
                let walked = walk::change(&mut cte.query, self);
                self.scopes.visible.pop();
                walked?;
                visible.push(defined);
            }
        }
        self.scopes.visible.push(visible);
        self.scopes.held.push(with);
        Ok(())
    }
}
