//! Views, and what depends on what: nothing that a view reads goes away or changes its columns under it.

use crate::schema::Schema;
use crate::shared::Shared;
use model::schema::VIEW_DEPTH_MAX;
use model::{Code, Error, Result, View};
use std::collections::BTreeSet;

pub const VIEWS_MAX: usize = 10_000;

impl Schema {
    /// Names of the views that read this table or view themselves.
    fn readers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let reads = move |view: &&Shared<View>| view.uses.iter().any(|used| used == name);
        self.views.values().filter(reads).map(|view| view.name.as_str())
    }

    /// All views that need this table or view, however far.
    pub(crate) fn dependents(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut left = vec![name.to_owned()];
        while let Some(name) = left.pop() {
            for reader in self.readers(&name) {
                if found.insert(reader.to_owned()) {
                    left.push(reader.to_owned());
                }
            }
        }
        found
    }

    /// Errors: `InUse` when a view reads it.
    pub(crate) fn check_unused(&self, name: &str, what: &str, hint: &str) -> Result<()> {
        let Some(reader) = self.readers(name).next() else { return Ok(()) };
        let message = format!("{what}: view \"{reader}\" reads it");
        Err(Error::new(Code::InUse, message).with_hint(hint))
    }

    /// How many views lie below a table or view, itself included; None when it is deeper than allowed.
    fn depth(&self, name: &str, room: usize) -> Option<usize> {
        let Some(view) = self.views.get(name) else { return Some(0) };
        let room = room.checked_sub(1)?;
        let below: Option<Vec<usize>> = view.uses.iter().map(|used| self.depth(used, room)).collect();
        Some(1 + below?.into_iter().max().unwrap_or(0))
    }

    /// Checks a view that is to be made.
    ///
    /// Errors: `AlreadyExists`, `NoSuchTable`, `InvalidStatement`, `InUse`, `LimitExceeded`.
    pub(crate) fn check_view(&self, view: &View, replace: bool) -> Result<()> {
        view.validate()?;
        match self.views.get(&view.name) {
            Some(known) if replace => self.check_replacement(known, view)?,
            None if self.views.len() < VIEWS_MAX => {}
            None => return Err(Error::new(Code::LimitExceeded, format!("a cluster has {VIEWS_MAX} views at most"))),
            Some(_) => {
                return Err(Error::new(Code::AlreadyExists, format!("view \"{}\" exists already", view.name)));
            }
        }
        for used in &view.uses {
            if !self.views.contains_key(used) && self.operable(used).is_none() {
                return Err(Error::new(Code::NoSuchTable, format!("table \"{used}\" does not exist")));
            }
        }
        let depths: Option<Vec<usize>> = view.uses.iter().map(|used| self.depth(used, VIEW_DEPTH_MAX - 1)).collect();
        if depths.is_none() {
            let message = format!("views over views are at most {VIEW_DEPTH_MAX} deep");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        Ok(())
    }

    fn check_replacement(&self, known: &View, view: &View) -> Result<()> {
        let dependents = self.dependents(&view.name);
        let own = |used: &&String| **used == view.name || dependents.contains(*used);
        if let Some(used) = view.uses.iter().find(own) {
            let message = format!("view \"{}\" would read itself, through \"{used}\"", view.name);
            return Err(Error::new(Code::InvalidStatement, message));
        }
        let outer = |view: &View| view.columns.iter().map(|(_, outer)| outer.clone()).collect::<Vec<_>>();
        match dependents.first() {
            Some(reader) if !outer(view).starts_with(&outer(known)) => {
                let message = format!("view \"{}\" would lose columns that view \"{reader}\" may read", view.name);
                Err(Error::new(Code::InUse, message).with_hint("keep the columns and add new ones behind them"))
            }
            _ => Ok(()),
        }
    }
}
