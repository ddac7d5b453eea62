//! Values for columns that a statement gives none: constants, expressions computed for each row, numbers of sequences.

use super::{Changer, coerced, null_violation};
use model::program::Surroundings;
use model::{Code, Error, Generated, Result, Table, Value};

/// What a computed default may read: the time of the statement, and chance.
struct Moment<'a> {
    changer: &'a Changer<'a>,
}

impl Surroundings for Moment<'_> {
    fn column(&self, _: usize) -> Result<Value> {
        Err(Error::internal("a default reads a column"))
    }

    fn now(&self) -> Result<i64> {
        Ok(self.changer.now_us)
    }

    fn new_uuid(&self) -> Result<[u8; 16]> {
        let mut uuid = self.changer.cluster.random()?;
        // Version 4, the variant of RFC 9562.
        uuid[6] = (uuid[6] & 0x0f) | 0x40;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        Ok(uuid)
    }
}

impl Changer<'_> {
    /// The default of a column, for so many rows.
    ///
    /// Errors: those of the expression; those of `Cluster::numbers`.
    pub(super) async fn defaults(&self, table: &Table, position: usize, count: usize) -> Result<Vec<Value>> {
        let column = &table.columns[position];
        match &column.generated {
            None => Ok(vec![column.default.clone().unwrap_or(Value::Null); count]),
            Some(Generated::Computed(program)) => {
                let moment = Moment { changer: self };
                (0..count).map(|_| coerced(table, position, program.evaluate(&moment)?)).collect()
            }
            Some(Generated::Identity { sequence, .. } | Generated::NextOf { sequence, .. }) => {
                let numbers = self.cluster.numbers(sequence, count, self.deadline).await?;
                numbers.into_iter().map(|number| coerced(table, position, Value::Integer(number))).collect()
            }
        }
    }

    /// Whole rows from the values of some columns, None standing for DEFAULT.
    ///
    /// Errors: `NullViolation`, `WrongType`, `ValueOutOfRange`, and those of defaults.
    pub(super) async fn complete(
        &self,
        table: &Table,
        columns: &[usize],
        given: Vec<Vec<Option<Value>>>,
    ) -> Result<Vec<Vec<Value>>> {
        let pattern: Vec<Value> = table.columns.iter().map(|c| c.default.clone().unwrap_or(Value::Null)).collect();
        let mut rows = vec![pattern; given.len()];
        let mut place_of = vec![None; table.columns.len()];
        columns.iter().enumerate().for_each(|(place, column)| place_of[*column] = Some(place));
        for (position, column) in table.columns.iter().enumerate().filter(|(_, column)| column.generated.is_some()) {
            let is_missing = |given: &[Option<Value>]| {
                place_of[position].is_none_or(|place: usize| given.get(place).is_none_or(Option::is_none))
            };
            let with_given = rows.iter_mut().zip(&given);
            let mut missing: Vec<&mut Vec<Value>> =
                with_given.filter(|(_, given)| is_missing(given)).map(|(row, _)| row).collect();
            if missing.len() < given.len() && column.is_always_generated() && !self.overrides {
                return Err(always(table, position));
            }
            let values = self.defaults(table, position, missing.len()).await?;
            missing.iter_mut().zip(values).for_each(|(row, value)| row[position] = value);
        }
        for (row, given) in rows.iter_mut().zip(given) {
            for (column, value) in columns.iter().zip(given) {
                if let Some(value) = value {
                    row[*column] = coerced(table, *column, value)?;
                }
            }
            let broken = row.iter().zip(&table.columns).position(|(value, column)| value.is_null() && !column.nullable);
            if let Some(column) = broken {
                return Err(null_violation(table, column));
            }
        }
        Ok(rows)
    }
}

fn always(table: &Table, position: usize) -> Error {
    let name = &table.columns[position].name;
    let message = format!("column \"{name}\" of table \"{}\" is GENERATED ALWAYS AS IDENTITY", table.name);
    Error::new(Code::InvalidStatement, message)
        .with_hint("leave it out or write DEFAULT; INSERT can also say OVERRIDING SYSTEM VALUE")
}

/// Refuses values for columns whose numbers the cluster always gives.
pub(super) fn check_assigned(table: &Table, assigned: impl Iterator<Item = usize>) -> Result<()> {
    for position in assigned {
        if table.columns[position].is_always_generated() {
            return Err(always(table, position));
        }
    }
    Ok(())
}
