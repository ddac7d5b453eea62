//! Rows, objects and keys: from the MessagePack that a user sent to the tuple or key that box takes.
//!
//! A sharded table's tuple and key begin with the bucket id, which is computed from the values just written: its place
//! is kept free and filled in at the end, so that a row is walked once. Like every integer it is stored in the shortest
//! form: the host compares keys by their bytes, so that another form of the same number is another key to it.

use crate::layout::Layout;
use model::msgpack::{self, Reader};
use model::{BucketId, Code, Error, Result, Value};

/// Writes rows and keys of one table. `bucket_count` is the tier's; 0 for a global table.
#[derive(Clone, Copy, Debug)]
pub struct RowWriter<'a> {
    pub layout: &'a Layout,
    pub bucket_count: u32,
}

impl<'a> RowWriter<'a> {
    pub fn new(layout: &'a Layout, bucket_count: u32) -> Self {
        Self { layout, bucket_count }
    }

    /// Consumes an array of column values and appends the tuple. Columns at the end that are nullable or have a
    /// default may be missing.
    ///
    /// Answers the bucket, 0 for a global table. On an error `out` holds garbage behind its old end.
    /// Errors: `Argument` for what is no array or has a wrong length, `NullViolation`, `WrongType`, `ValueOutOfRange`.
    pub fn row(&self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<BucketId> {
        let given = reader.array_len().map_err(|_| self.not_an_array("row"))?;
        let columns = &self.layout.table.columns;
        if given > self.layout.visible.len() {
            return Err(self.wrong_width(given));
        }
        let start = self.begin(self.layout.width(), out);
        let mut left = given;
        for (position, column) in columns.iter().enumerate() {
            if left > 0 && !column.hidden {
                left -= 1;
                self.column(position, reader, out)?;
                continue;
            }
            match &column.default {
                Some(default) => default.write_stored(out),
                None if column.generated.is_some() => return Err(self.is_computed(position)),
                None if column.nullable => msgpack::write_nil(out),
                None => {
                    return Err(self.wrong_width(given).with_hint(format!(
                        "column {} is \"{}\"",
                        position + 1,
                        column.name
                    )));
                }
            }
        }
        self.finish(start, &self.layout.sharding, out)
    }

    /// Consumes a map of column names to values and appends the tuple. Names left out take the column's default, or
    /// null.
    ///
    /// Errors: as `row`, and `NoSuchColumn` with the nearest name.
    pub fn object(&self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<BucketId> {
        let columns = &self.layout.table.columns;
        let count = reader.map_len().map_err(|_| {
            Error::new(
                Code::Argument,
                format!("an object of table \"{}\" is a map of names to values", self.layout.table.name),
            )
        })?;
        let mut given: Vec<Option<&[u8]>> = vec![None; columns.len()];
        for _ in 0..count {
            let name = reader.str().map_err(|_| Error::new(Code::Argument, "the names in an object are strings"))?;
            let position = self.layout.require_column(name)?;
            if given[position].replace(reader.raw()?).is_some() {
                return Err(Error::new(Code::Argument, format!("column \"{name}\" is given twice")));
            }
        }
        let start = self.begin(columns.len(), out);
        for (position, column) in columns.iter().enumerate() {
            match (given[position], &column.default) {
                (Some(bytes), _) => self.column(position, &mut Reader::new(bytes), out)?,
                (None, Some(default)) => default.write_stored(out),
                (None, None) if column.generated.is_some() => return Err(self.is_computed(position)),
                (None, None) if column.nullable => msgpack::write_nil(out),
                (None, None) => return Err(self.null_violation(position)),
            }
        }
        self.finish(start, &self.layout.sharding, out)
    }

    /// Consumes a primary key, as an array or, when it is of one column, as the plain value, and appends the key of
    /// the primary index.
    ///
    /// Errors: as `row`.
    pub fn key(&self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<BucketId> {
        let primary_key = &self.layout.table.primary_key;
        let is_array = matches!(reader.peek()?, 0x90..=0x9f | 0xdc | 0xdd);
        let given = if is_array { reader.array_len()? } else { 1 };
        if given != primary_key.len() {
            return Err(self.wrong_key_width(given));
        }
        let start = self.begin(given, out);
        for &position in primary_key {
            self.column(position, reader, out)?;
        }
        self.finish(start, &self.layout.sharding_in_key, out)
    }

    /// Appends the tuple of a complete row of values that are already coerced, as the SQL room hands them over.
    ///
    /// Errors: `Argument` for a wrong length, `NullViolation`.
    pub fn row_of_values(&self, row: &[Value], out: &mut Vec<u8>) -> Result<BucketId> {
        if row.len() != self.layout.width() {
            return Err(self.wrong_width(row.len()));
        }
        let start = self.begin(row.len(), out);
        for (position, value) in row.iter().enumerate() {
            self.check_null(position, value)?;
            value.write_stored(out);
        }
        self.finish(start, &self.layout.sharding, out)
    }

    /// Errors: `NullViolation` for a null where the column takes none, `Argument` for a column that is not there.
    pub fn check_null(&self, position: usize, value: &Value) -> Result<()> {
        match self.layout.table.columns.get(position) {
            None => Err(self.wrong_width(position + 1)),
            Some(column) if value.is_null() && !column.nullable => Err(self.null_violation(position)),
            Some(_) => Ok(()),
        }
    }

    /// Appends the primary index's key of values that are already coerced.
    ///
    /// Errors: as `row_of_values`.
    pub fn key_of_values(&self, key: &[Value], out: &mut Vec<u8>) -> Result<BucketId> {
        let primary_key = &self.layout.table.primary_key;
        if key.len() != primary_key.len() {
            return Err(self.wrong_key_width(key.len()));
        }
        let start = self.begin(key.len(), out);
        for (value, &position) in key.iter().zip(primary_key) {
            if value.is_null() {
                return Err(self.null_violation(position));
            }
            value.write_stored(out);
        }
        self.finish(start, &self.layout.sharding_in_key, out)
    }

    /// Consumes a value of one column and appends its stored form.
    fn column(&self, position: usize, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
        if reader.take_nil() {
            if !self.layout.table.columns[position].nullable {
                return Err(self.null_violation(position));
            }
            msgpack::write_nil(out);
            return Ok(());
        }
        write_column(self.layout, position, reader, out)
    }

    /// Writes the head of a tuple or key of `len` columns; answers where it starts.
    fn begin(&self, len: usize, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        if !self.layout.is_sharded() {
            msgpack::write_array_len(out, len);
            return start;
        }
        msgpack::write_array_len(out, len + 1);
        out.extend_from_slice(if self.is_wide() { &[0xce, 0, 0, 0, 0] } else { &[0xcd, 0, 0] });
        start
    }

    /// Fills in the bucket of the tuple or key that starts at `start`, whose sharding columns are at `places`.
    fn finish(&self, start: usize, places: &[usize], out: &mut Vec<u8>) -> Result<BucketId> {
        if !self.layout.is_sharded() {
            return Ok(0);
        }
        let mut columns = Reader::new(&out[start..]);
        columns.array_len()?;
        columns.skip()?;
        let bucket = self.bucket_of(columns, places)?;
        let end = out.len() - columns.rest().len();
        let place = if self.is_wide() { 5 } else { 3 };
        let bytes = bucket.to_be_bytes();
        let (marker, digits) = match bucket {
            0..=0x7f => (bytes[3], &bytes[4..]),
            0x80..=0xff => (0xcc, &bytes[3..]),
            0x100..=0xffff => (0xcd, &bytes[2..]),
            _ => (0xce, &bytes[..]),
        };
        let unused = place - 1 - digits.len();
        out[end - digits.len()..end].copy_from_slice(digits);
        out[end - digits.len() - 1] = marker;
        if unused > 0 {
            out.drain(end - place..end - place + unused);
        }
        Ok(bucket)
    }

    /// The bucket of the stored values that `columns` stands before.
    fn bucket_of(&self, columns: Reader<'_>, places: &[usize]) -> Result<BucketId> {
        let mut hasher = sharding::KeyHasher::default();
        for &place in places {
            let mut at = columns;
            for _ in 0..place {
                at.skip()?;
            }
            hasher.push_raw(&mut at)?;
        }
        Ok(sharding::bucket_of(hasher.finish(), self.bucket_count))
    }

    fn is_wide(&self) -> bool {
        self.bucket_count > u32::from(u16::MAX)
    }

    fn not_an_array(&self, what: &str) -> Error {
        Error::new(Code::Argument, format!("a {what} of table \"{}\" is an array of values", self.layout.table.name))
    }

    fn wrong_width(&self, given: usize) -> Error {
        let table = &self.layout.table;
        Error::new(
            Code::Argument,
            format!("table \"{}\" has {} columns, the row has {given} values", table.name, self.layout.visible.len()),
        )
    }

    fn wrong_key_width(&self, given: usize) -> Error {
        let table = &self.layout.table;
        let names: Vec<&str> = table.primary_key.iter().map(|p| table.columns[*p].name.as_str()).collect();
        let message = format!(
            "the primary key of table \"{}\" has {} columns, the key has {given} values",
            table.name,
            names.len()
        );
        Error::new(Code::Argument, message).with_hint(format!("a key is {{{}}}", names.join(", ")))
    }

    fn null_violation(&self, position: usize) -> Error {
        null_violation(self.layout, position)
    }

    /// The error of a row without a value for a column whose default is computed, which statements do.
    fn is_computed(&self, position: usize) -> Error {
        let table = &self.layout.table;
        let column = &table.columns[position];
        if column.hidden {
            let message = format!("table \"{}\" has no primary key of its own", table.name);
            return Error::new(Code::Unsupported, message).with_hint("insert into it with SQL");
        }
        let message = format!("the default of column \"{}\" of table \"{}\" is computed", column.name, table.name);
        Error::new(Code::Unsupported, message).with_hint("give a value, or insert with SQL")
    }
}

/// Consumes a value that is not nil and appends the stored form; an error names the column.
pub(crate) fn write_column(layout: &Layout, position: usize, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
    layout.cells[position].write(reader, out).map_err(|mut error| {
        error.message = format!("column \"{}\": {}", layout.table.columns[position].name, error.message);
        error
    })
}

pub(crate) fn null_violation(layout: &Layout, position: usize) -> Error {
    let table = &layout.table;
    let name = &table.columns[position].name;
    Error::new(Code::NullViolation, format!("column \"{name}\" of table \"{}\" can not be null", table.name))
}

/// The bucket of a stored tuple or key of a sharded table: its first field.
///
/// Errors: `Argument` when the bytes are no such tuple.
pub fn bucket_of_stored(bytes: &[u8]) -> Result<BucketId> {
    // Most buckets of a tier of up to 65,535, in rows of up to 14 columns.
    if let [0x90..=0x9f, 0xcd, high, low, ..] = *bytes {
        return Ok(u32::from(u16::from_be_bytes([high, low])));
    }
    let mut reader = Reader::new(bytes);
    reader.array_len()?;
    let bucket = crate::cell::integer(reader.raw()?).and_then(|bucket| BucketId::try_from(bucket).ok());
    bucket.ok_or_else(|| Error::new(Code::Argument, "a stored tuple begins with its bucket"))
}

impl RowWriter<'_> {
    /// Appends the primary index's key of a stored tuple.
    ///
    /// Errors: `Argument` when the tuple is not one of this table.
    pub fn key_of_stored(&self, tuple: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let offset = self.layout.table.stored_offset();
        let primary_key = &self.layout.table.primary_key;
        msgpack::write_array_len(out, primary_key.len() + offset);
        for field in (0..offset).chain(primary_key.iter().map(|column| column + offset)) {
            let bytes = crate::compare::field_of(tuple, field);
            out.extend_from_slice(bytes.ok_or_else(|| Error::new(Code::Argument, "a stored tuple is too short"))?);
        }
        Ok(())
    }

    /// The bucket of a sharding key's stored values, in the order of the sharding key.
    ///
    /// Errors: `Argument` for broken bytes.
    pub fn bucket_of_stored_values(&self, values: &[&[u8]]) -> Result<BucketId> {
        let mut hasher = sharding::KeyHasher::default();
        for value in values {
            hasher.push_raw(&mut Reader::new(value))?;
        }
        Ok(sharding::bucket_of(hasher.finish(), self.bucket_count))
    }
}
