//! What rows a `select` or `count` wants: from conditions like `{'>=', 'age', 18}` to an index, a range of it, filters
//! for the rest, and an order.
//!
//! The first condition that names an index, or the first column of one, picks the index and with it the order of the
//! rows: ascending, or descending for `<` and `<=`. Without such a condition the primary key does. A later condition on
//! the same columns closes the other end of the range; whatever is left is a filter.

use crate::compare::{TupleOrder, compare, field_of};
use crate::layout::Layout;
use crate::row::{RowWriter, write_column};
use model::msgpack::{self, Reader};
use model::{BucketId, Code, ColumnType, Error, Result, error::nearest};
use std::cmp::Ordering;

/// Conditions in one request.
pub const CONDITIONS_MAX: usize = 256;
/// What the primary index is called in box, and in requests that no other index of this name takes up.
pub const PRIMARY_INDEX_NAME: &str = "primary";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operator {
    Equal = 0,
    Less = 1,
    LessOrEqual = 2,
    GreaterOrEqual = 3,
    Greater = 4,
}

impl Operator {
    fn from_text(text: &str) -> Option<Operator> {
        Some(match text {
            "=" | "==" => Operator::Equal,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">=" => Operator::GreaterOrEqual,
            ">" => Operator::Greater,
            _ => return None,
        })
    }

    fn from_number(number: u64) -> Option<Operator> {
        use Operator::*;
        [Equal, Less, LessOrEqual, GreaterOrEqual, Greater].get(usize::try_from(number).ok()?).copied()
    }

    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Operator::Equal => ordering.is_eq(),
            Operator::Less => ordering.is_lt(),
            Operator::LessOrEqual => ordering.is_le(),
            Operator::GreaterOrEqual => ordering.is_ge(),
            Operator::Greater => ordering.is_gt(),
        }
    }
}

/// Some columns, compared in turn with some stored values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub operator: Operator,
    pub columns: Vec<usize>,
    /// Each the bytes of one object.
    pub values: Vec<Vec<u8>>,
}

impl Condition {
    /// Whether the stored tuple of this table fulfils the condition.
    pub fn accepts(&self, layout: &Layout, tuple: &[u8]) -> bool {
        self.operator.accepts(self.compare(layout, tuple))
    }

    /// How the tuple's columns stand to the values.
    pub fn compare(&self, layout: &Layout, tuple: &[u8]) -> Ordering {
        for (&column, value) in self.columns.iter().zip(&self.values) {
            let field = layout.column(tuple, column).unwrap_or(&[0xc0]);
            let ordering = compare(layout.cells[column].ty, field, value);
            if ordering.is_ne() {
                return ordering;
            }
        }
        Ordering::Equal
    }

    /// The values one behind the other, as a key continues.
    pub fn key(&self) -> Vec<u8> {
        self.values.concat()
    }
}

/// Rows to find, in an order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// 0 is the primary index.
    pub index: u32,
    pub descending: bool,
    /// On a prefix of the index's columns; its operator is `>` or `>=`.
    pub lower: Option<Condition>,
    /// On a prefix of the index's columns; its operator is `<` or `<=`.
    pub upper: Option<Condition>,
    pub filters: Vec<Condition>,
    /// Values of the order's fields: only rows behind them are wanted.
    pub after: Option<Vec<Vec<u8>>>,
    /// None for all.
    pub rows_max: Option<usize>,
}

/// The columns of an index; 0 is the primary key.
///
/// Errors: `NoSuchIndex` when it was dropped meanwhile.
pub fn index_columns(layout: &Layout, index: u32) -> Result<&[usize]> {
    if index == 0 {
        return Ok(&layout.table.primary_key);
    }
    let found = layout.table.indexes.iter().find(|candidate| candidate.id == index);
    found.map(|index| index.columns.as_slice()).ok_or_else(|| {
        Error::new(Code::NoSuchIndex, format!("table \"{}\" has no index number {index}", layout.table.name))
    })
}

impl Selection {
    /// Consumes the user's conditions: nil, or an array of them.
    ///
    /// Errors: `Argument`, `NoSuchColumn`, `WrongType`, `ValueOutOfRange`, `LimitExceeded`.
    pub fn read(layout: &Layout, reader: &mut Reader<'_>) -> Result<Selection> {
        let conditions = read_conditions(layout, reader)?;
        let scanned = conditions.iter().enumerate().find_map(|(at, (condition, index))| {
            let index = index.or_else(|| index_starting_with(layout, condition.columns[0]));
            index.map(|index| (at, index))
        });
        let Some((at, index)) = scanned else {
            let filters = conditions.into_iter().map(|(condition, _)| condition).collect();
            return Ok(Selection { filters, ..Selection::default() });
        };
        let mut filters: Vec<Condition> = conditions.into_iter().map(|(condition, _)| condition).collect();
        let first = filters.remove(at);
        let mut selection = Selection { index, ..Selection::default() };
        selection.descending = matches!(first.operator, Operator::Less | Operator::LessOrEqual);
        selection.bound(first);
        for condition in std::mem::take(&mut filters) {
            let is_bound = selection.can_bound(&condition);
            if is_bound { selection.bound(condition) } else { selection.filters.push(condition) }
        }
        Ok(selection)
    }

    /// Makes the condition an end of the range, or both for an equality.
    fn bound(&mut self, condition: Condition) {
        match condition.operator {
            Operator::Equal => {
                self.lower = Some(Condition { operator: Operator::GreaterOrEqual, ..condition.clone() });
                self.upper = Some(Condition { operator: Operator::LessOrEqual, ..condition });
            }
            Operator::Greater | Operator::GreaterOrEqual => self.lower = Some(condition),
            Operator::Less | Operator::LessOrEqual => self.upper = Some(condition),
        }
    }

    /// Whether the condition closes the end of the range that is open, on the same columns as the closed one.
    fn can_bound(&self, condition: &Condition) -> bool {
        let (taken, other) = match condition.operator {
            Operator::Greater | Operator::GreaterOrEqual => (&self.lower, &self.upper),
            Operator::Less | Operator::LessOrEqual => (&self.upper, &self.lower),
            Operator::Equal => return false,
        };
        taken.is_none() && other.as_ref().is_some_and(|other| other.columns == condition.columns)
    }

    /// The stored fields that order the rows. Rows that are equal in an index's columns come by bucket and primary key,
    /// as the host keeps them.
    ///
    /// Errors: `NoSuchIndex`.
    pub fn order(&self, layout: &Layout) -> Result<TupleOrder> {
        let offset = layout.table.stored_offset();
        let field = |&column: &usize| (column + offset, layout.cells[column].ty);
        let mut fields: Vec<(usize, ColumnType)> = index_columns(layout, self.index)?.iter().map(field).collect();
        if self.index != 0 {
            if layout.is_sharded() {
                fields.push((0, ColumnType::BigInt));
            }
            fields.extend(layout.table.primary_key.iter().map(field));
        }
        Ok(TupleOrder { fields, descending: self.descending })
    }

    /// Sets the row behind which to begin: an array of all columns, or a map that names those that order the rows.
    ///
    /// Errors: as `RowWriter::row`, `Argument` when a column is missing.
    pub fn set_after(&mut self, writer: &RowWriter<'_>, reader: &mut Reader<'_>) -> Result<()> {
        let order = self.order(writer.layout)?;
        let is_map = matches!(reader.peek()?, 0x80..=0x8f | 0xde | 0xdf);
        if is_map {
            self.after = Some(after_object(writer, &order, reader)?);
            return Ok(());
        }
        let mut tuple = Vec::new();
        writer.row(reader, &mut tuple)?;
        let fields = order.fields.iter().filter_map(|(field, _)| field_of(&tuple, *field));
        self.after = Some(fields.map(<[u8]>::to_vec).collect());
        Ok(())
    }

    /// The one bucket that all rows must be in, when equalities name the whole sharding key.
    ///
    /// Errors: those of writing a key.
    pub fn single_bucket(&self, writer: &RowWriter<'_>) -> Result<Option<BucketId>> {
        if !writer.layout.is_sharded() {
            return Ok(None);
        }
        let mut values = Vec::new();
        for &column in &writer.layout.sharding {
            match self.equal_value(column) {
                Some(value) => values.push(value),
                None => return Ok(None),
            }
        }
        writer.bucket_of_stored_values(&values).map(Some)
    }

    /// The value that a column must have by these conditions.
    fn equal_value(&self, column: usize) -> Option<&[u8]> {
        let within = |condition: &Condition| condition.columns.iter().position(|c| *c == column);
        if let (Some(lower), Some(upper)) = (&self.lower, &self.upper)
            && lower.values == upper.values
            && lower.operator == Operator::GreaterOrEqual
            && upper.operator == Operator::LessOrEqual
            && let Some(at) = within(lower)
        {
            return Some(&lower.values[at]);
        }
        let equalities = self.filters.iter().filter(|condition| condition.operator == Operator::Equal);
        equalities.filter_map(|condition| within(condition).map(|at| condition.values[at].as_slice())).next()
    }
}

/// The values of the order's fields, from an object that names the columns among them.
fn after_object(writer: &RowWriter<'_>, order: &TupleOrder, reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>> {
    let layout = writer.layout;
    let mut given: Vec<Option<&[u8]>> = vec![None; layout.width()];
    for _ in 0..reader.map_len()? {
        let name = reader.str().map_err(|_| Error::new(Code::Argument, "the names in `after` are strings"))?;
        given[layout.require_column(name)?] = Some(reader.raw()?);
    }
    let require = |column: usize| {
        given[column].ok_or_else(|| {
            let name = &layout.table.columns[column].name;
            Error::new(Code::Argument, format!("`after` lacks column \"{name}\", by which the rows are ordered"))
        })
    };
    let mut values = Vec::with_capacity(order.fields.len());
    for &(field, _) in &order.fields {
        let mut value = Vec::new();
        match field.checked_sub(layout.table.stored_offset()) {
            Some(column) => {
                let mut bytes = Reader::new(require(column)?);
                if bytes.take_nil() {
                    msgpack::write_nil(&mut value)
                } else {
                    write_column(layout, column, &mut bytes, &mut value)?
                }
            }
            None => {
                let mut key = Vec::new();
                msgpack::write_array_len(&mut key, layout.table.primary_key.len());
                for &column in &layout.table.primary_key {
                    key.extend_from_slice(require(column)?);
                }
                let bucket = writer.key(&mut Reader::new(&key), &mut Vec::new())?;
                msgpack::write_uint(&mut value, bucket.into());
            }
        }
        values.push(value);
    }
    Ok(values)
}

fn read_conditions(layout: &Layout, reader: &mut Reader<'_>) -> Result<Vec<(Condition, Option<u32>)>> {
    if reader.take_nil() {
        return Ok(Vec::new());
    }
    let count = reader.array_len().map_err(|_| malformed())?;
    if count > CONDITIONS_MAX {
        let message = format!("{count} conditions in a request, at most {CONDITIONS_MAX} are taken");
        return Err(Error::new(Code::LimitExceeded, message));
    }
    (0..count).map(|_| read_condition(layout, reader)).collect()
}

/// A condition, and the index when it names one.
fn read_condition(layout: &Layout, reader: &mut Reader<'_>) -> Result<(Condition, Option<u32>)> {
    if reader.array_len().map_err(|_| malformed())? != 3 {
        return Err(malformed());
    }
    let text = reader.str().map_err(|_| malformed())?;
    let operator = Operator::from_text(text).ok_or_else(|| {
        let hint = "the operators are = == < <= >= >";
        Error::new(Code::Argument, format!("'{text}' is no operator of a condition")).with_hint(hint)
    })?;
    let name = reader.str().map_err(|_| malformed())?;
    let (columns, index) = columns_of(layout, name)?;
    let is_list = matches!(reader.peek()?, 0x90..=0x9f | 0xdc | 0xdd);
    let given = if is_list { reader.array_len()? } else { 1 };
    if given == 0 || given > columns.len() {
        let message = format!("a condition on \"{name}\" takes 1 to {} values, {given} are given", columns.len());
        return Err(Error::new(Code::Argument, message));
    }
    let columns = columns[..given].to_vec();
    let mut values = Vec::with_capacity(given);
    for &column in &columns {
        let mut value = Vec::new();
        if reader.take_nil() {
            msgpack::write_nil(&mut value);
        } else {
            write_column(layout, column, reader, &mut value)?;
        }
        values.push(value);
    }
    Ok((Condition { operator, columns, values }, index))
}

/// What a condition's name stands for: an index, else a column, else the primary index.
fn columns_of(layout: &Layout, name: &str) -> Result<(Vec<usize>, Option<u32>)> {
    if let Some(index) = layout.table.indexes.iter().find(|index| index.name == name) {
        return Ok((index.columns.clone(), Some(index.id)));
    }
    if name == PRIMARY_INDEX_NAME && layout.table.column_position(name).is_none() {
        return Ok((layout.table.primary_key.clone(), Some(0)));
    }
    layout.require_column(name).map(|column| (vec![column], None)).map_err(|error| {
        let message = format!("table \"{}\" has no column and no index \"{name}\"", layout.table.name);
        let indexes = layout.table.indexes.iter().map(|index| index.name.as_str());
        match (&error.hint, nearest(name, indexes)) {
            (Some(hint), _) => Error::new(Code::NoSuchColumn, message).with_hint(hint.clone()),
            (None, Some(near)) => {
                Error::new(Code::NoSuchColumn, message).with_hint(format!("did you mean \"{near}\"?"))
            }
            (None, None) => Error::new(Code::NoSuchColumn, message),
        }
    })
}

fn index_starting_with(layout: &Layout, column: usize) -> Option<u32> {
    if layout.table.primary_key.first() == Some(&column) {
        return Some(0);
    }
    layout.table.indexes.iter().find(|index| index.columns.first() == Some(&column)).map(|index| index.id)
}

/// The number of an index by its name, nil for the primary one.
///
/// Errors: `NoSuchIndex` with the nearest name.
pub fn index_by_name(layout: &Layout, name: Option<&str>) -> Result<u32> {
    let Some(name) = name else { return Ok(0) };
    let indexes = &layout.table.indexes;
    if let Some(index) = indexes.iter().find(|index| index.name == name) {
        return Ok(index.id);
    }
    if name == PRIMARY_INDEX_NAME {
        return Ok(0);
    }
    let error = Error::new(Code::NoSuchIndex, format!("table \"{}\" has no index \"{name}\"", layout.table.name));
    Err(match nearest(name, indexes.iter().map(|index| index.name.as_str())) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    })
}

fn malformed() -> Error {
    Error::new(Code::Argument, "conditions are an array of {operator, column or index, value}")
}

impl Selection {
    /// Appends the wire form.
    pub fn write(&self, out: &mut Vec<u8>) {
        msgpack::write_array_len(out, 7);
        msgpack::write_uint(out, self.index.into());
        msgpack::write_bool(out, self.descending);
        write_conditions(out, self.lower.as_slice());
        write_conditions(out, self.upper.as_slice());
        write_conditions(out, &self.filters);
        match &self.after {
            Some(values) => write_values(out, values),
            None => msgpack::write_nil(out),
        }
        match self.rows_max {
            Some(rows_max) => msgpack::write_uint(out, rows_max as u64),
            None => msgpack::write_nil(out),
        }
    }

    /// Consumes the wire form and checks it against the table.
    ///
    /// Errors: `Argument` when it is none, `SchemaChanged` when it speaks of columns that are not there.
    pub fn read_wire(layout: &Layout, reader: &mut Reader<'_>) -> Result<Selection> {
        reader.array_len()?;
        let index = u32::try_from(reader.uint()?).map_err(|_| malformed())?;
        index_columns(layout, index)?;
        Ok(Selection {
            index,
            descending: reader.bool()?,
            lower: read_wire_conditions(layout, reader)?.pop(),
            upper: read_wire_conditions(layout, reader)?.pop(),
            filters: read_wire_conditions(layout, reader)?,
            after: if reader.take_nil() { None } else { Some(read_wire_values(reader)?) },
            rows_max: if reader.take_nil() { None } else { Some(reader.uint()? as usize) },
        })
    }
}

fn write_values(out: &mut Vec<u8>, values: &[Vec<u8>]) {
    msgpack::write_array_len(out, values.len());
    values.iter().for_each(|value| out.extend_from_slice(value));
}

fn write_conditions(out: &mut Vec<u8>, conditions: &[Condition]) {
    msgpack::write_array_len(out, conditions.len());
    for condition in conditions {
        msgpack::write_array_len(out, 3);
        msgpack::write_uint(out, condition.operator as u64);
        msgpack::write_array_len(out, condition.columns.len());
        condition.columns.iter().for_each(|column| msgpack::write_uint(out, *column as u64));
        write_values(out, &condition.values);
    }
}

fn read_wire_values(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>> {
    let len = reader.array_len()?;
    (0..len).map(|_| reader.raw().map(<[u8]>::to_vec)).collect()
}

fn read_wire_conditions(layout: &Layout, reader: &mut Reader<'_>) -> Result<Vec<Condition>> {
    let len = reader.array_len()?;
    let mut conditions = Vec::with_capacity(len.min(CONDITIONS_MAX));
    for _ in 0..len {
        reader.array_len()?;
        let operator = Operator::from_number(reader.uint()?).ok_or_else(malformed)?;
        let width = reader.array_len()?;
        let columns: Vec<usize> =
            (0..width).map(|_| reader.uint().map(|column| column as usize)).collect::<Result<_>>()?;
        if columns.is_empty() || columns.iter().any(|column| *column >= layout.width()) {
            let message = format!("table \"{}\" changed under a request", layout.table.name);
            return Err(Error::new(Code::SchemaChanged, message));
        }
        conditions.push(Condition { operator, columns, values: read_wire_values(reader)? });
    }
    Ok(conditions)
}
