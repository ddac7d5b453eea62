//! RETURNING: what a statement shows of the rows that it changes.
//!
//! Plain columns are taken from the rows; as soon as there is an expression, the engine computes all of it over the
//! rows as literals.

use super::Changer;
use super::literal_rows::{self, column};
use super::select::{columns_read, query_of_items};
use crate::front::execute::RowSet;
use crate::front::params::substitute;
use crate::front::parse::fold;
use crate::front::point::shown_type;
use crate::front::queries::ResultColumn;
use crate::front::views;
use model::{Code, Error, Result, Table, Value};
use sqlparser::ast::{Expr, ObjectNamePart, SelectItem, SelectItemQualifiedWildcardKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows that one query computes on.
const CHUNK_ROWS: usize = 1_000;

pub(super) struct Returning {
    table: Arc<Table>,
    qualifier: String,
    outputs: Vec<Output>,
}

enum Output {
    Column { at: usize, name: String },
    Computed(Box<SelectItem>),
}

impl Returning {
    /// Reads the list over a table that goes by the name `qualifier`.
    pub fn new(items: &[SelectItem], table: &Arc<Table>, qualifier: &str, params: &[Value]) -> Result<Self> {
        let mut returning = Self { table: table.clone(), qualifier: qualifier.to_owned(), outputs: Vec::new() };
        for item in items {
            returning.add(item, params)?;
        }
        Ok(returning)
    }

    fn add(&mut self, item: &SelectItem, params: &[Value]) -> Result<()> {
        match item {
            SelectItem::Wildcard(_) => self.add_all(),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => match &name.0[..] {
                [ObjectNamePart::Identifier(ident)] if fold(ident).text == self.qualifier => self.add_all(),
                _ => {
                    let message = format!("RETURNING {name}.*: only rows of \"{}\" are returned", self.qualifier);
                    return Err(Error::new(Code::InvalidStatement, message));
                }
            },
            SelectItem::UnnamedExpr(expr) => match self.position(expr) {
                Some(at) => self.outputs.push(Output::Column { at, name: self.table.columns[at].name.clone() }),
                None => self.add_computed(item, params),
            },
            SelectItem::ExprWithAlias { expr, alias } => match self.position(expr) {
                Some(at) => self.outputs.push(Output::Column { at, name: fold(alias).text }),
                None => self.add_computed(item, params),
            },
            other => {
                return Err(Error::new(Code::Unsupported, format!("RETURNING {other} is not supported")));
            }
        }
        Ok(())
    }

    fn add_all(&mut self) {
        let column = |at: usize| Output::Column { at, name: self.table.columns[at].name.clone() };
        self.outputs.extend(self.table.visible().map(column));
    }

    fn add_computed(&mut self, item: &SelectItem, params: &[Value]) {
        let mut item = item.clone();
        substitute(&mut item, params);
        self.outputs.push(Output::Computed(Box::new(item)));
    }

    fn position(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Identifier(ident) => self.table.column_position(&fold(ident).text),
            Expr::CompoundIdentifier(parts) => match &parts[..] {
                [qualifier, column] if fold(qualifier).text == self.qualifier => {
                    self.table.column_position(&fold(column).text)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The columns that have to be known of each row.
    pub fn columns_read(&self) -> BTreeSet<usize> {
        let mut read = BTreeSet::new();
        for output in &self.outputs {
            match output {
                Output::Column { at, .. } => {
                    read.insert(*at);
                }
                Output::Computed(item) => {
                    if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = &**item {
                        read.extend(columns_read(&self.table, std::iter::once(expr)));
                    }
                }
            }
        }
        read
    }

    /// The list for the engine.
    fn items(&self) -> Vec<SelectItem> {
        let item = |output: &Output| match output {
            Output::Column { at, .. } => {
                SelectItem::UnnamedExpr(column(&self.qualifier, &self.table.columns[*at].name))
            }
            Output::Computed(item) => (**item).clone(),
        };
        self.outputs.iter().map(item).collect()
    }

    /// A column of the result as the table has it; None for what is computed.
    fn plain_column(&self, output: &Output) -> Option<ResultColumn> {
        match output {
            Output::Column { at, name } => {
                Some(ResultColumn { name: name.clone(), ty: shown_type(self.table.columns[*at].ty) })
            }
            Output::Computed(_) => None,
        }
    }

    fn plain_columns(&self) -> Option<Vec<ResultColumn>> {
        self.outputs.iter().map(|output| self.plain_column(output)).collect()
    }

    fn write_plain(&self, row: &[Value], out: &mut Vec<u8>) {
        let values = self.outputs.iter().filter_map(|output| match output {
            Output::Column { at, .. } => Some(row[*at].clone()),
            Output::Computed(_) => None,
        });
        Value::Array(values.collect()).write_shown(out);
    }
}

impl Changer<'_> {
    /// What RETURNING shows of these rows, whole rows of the table.
    ///
    /// Errors: those of its names, types and values.
    pub(super) async fn returned(&self, returning: &Returning, rows: &[Vec<Value>]) -> Result<RowSet> {
        if let Some(columns) = returning.plain_columns() {
            let mut set = RowSet { columns, rows: Vec::new(), count: rows.len() };
            rows.iter().for_each(|row| returning.write_plain(row, &mut set.rows));
            return Ok(set);
        }
        let mut set = RowSet { columns: Vec::new(), rows: Vec::new(), count: 0 };
        // Without rows the engine still checks names and tells types.
        let nothing: [&[Vec<Value>]; 1] = [&[]];
        let chunks: Vec<&[Vec<Value>]> =
            if rows.is_empty() { nothing.to_vec() } else { rows.chunks(CHUNK_ROWS).collect() };
        for chunk in chunks {
            self.compute_returned(returning, chunk, &mut set).await?;
        }
        Ok(set)
    }

    async fn compute_returned(&self, returning: &Returning, rows: &[Vec<Value>], set: &mut RowSet) -> Result<()> {
        let relation =
            literal_rows::relation(&returning.table, &returning.qualifier, rows.iter().map(|row| row.as_slice()))?;
        let mut query = query_of_items(returning.items(), vec![relation], None)?;
        views::expand(&mut query, &*self.cluster.schema())?;
        let request = self.request(query);
        let mut stream = self.engine.query(self.cluster, request).await?;
        if set.columns.is_empty() {
            let columns = stream.columns().iter().zip(&returning.outputs);
            set.columns =
                columns.map(|(column, output)| returning.plain_column(output).unwrap_or(column.clone())).collect();
        }
        while let Some(batch) = stream.next_values().await? {
            for row in batch.into_iter().take(rows.len()) {
                let shown = row.into_iter().zip(&returning.outputs).map(|(value, output)| match output {
                    Output::Column { at, .. } => value.coerce(returning.table.columns[*at].ty),
                    Output::Computed(_) => Ok(value),
                });
                Value::Array(shown.collect::<Result<_>>()?).write_shown(&mut set.rows);
                set.count += 1;
            }
        }
        Ok(())
    }
}
