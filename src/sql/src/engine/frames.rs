//! What travels between router and storage: a request with a plan, and frames with its rows.
//!
//! A request is MessagePack: the catalog version, the time left, limits, the buckets of each scan, rows sent along (Arrow
//! IPC streams), the plan's bytes. A frame begins with its kind and 15 bytes of head, so that what follows is aligned
//! as Arrow wants it:
//!
//! | kind  | head            | rest |
//! |-------|-----------------|------|
//! | batch | number of rows  | a piece of an Arrow IPC stream; nothing when there are no bytes in the columns: the IPC decoder never ends a message without a body |
//! | end   |                 | rows, bytes, microseconds and, when asked for, the plan with its metrics |
//! | error |                 | an error of ours |
//!
//! A stream without an end frame is broken, whatever came before.

use crate::cluster::{BucketRange, QueryKey};
use datafusion::arrow::array::{
    Array, ArrayRef, BinaryViewArray, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array,
};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;
use model::msgpack::{Reader, write_array_len, write_bin, write_bool, write_map_len, write_nil, write_str, write_uint};
use model::{Code, Error, Result, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;

const HEAD_BYTES: usize = 16;
const KIND_BATCH: u8 = 1;
const KIND_END: u8 = 2;
const KIND_ERROR: u8 = 3;
const PROTOCOL: u64 = 2;
/// Rows without bytes that a request may claim to have sent along.
const HOLLOW_ROWS_MAX: usize = 1 << 30;

/// A fragment as a storage receives it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub catalog_version: u64,
    pub time_left_ms: u64,
    pub memory_bytes_max: u64,
    pub analyze: bool,
    /// The query's name and all of its tables, when its parts share their moments.
    pub query: Option<(QueryKey, Vec<TableId>)>,
    pub buckets: BTreeMap<u32, Vec<BucketRange>>,
    /// Arrow IPC streams by the number of the leaf that reads them.
    pub shipped: BTreeMap<u32, Arc<Vec<u8>>>,
    pub plan: Vec<u8>,
}

/// What a storage did for a fragment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: u64,
    pub bytes: u64,
    pub elapsed_us: u64,
    /// The plan with its metrics, when it was asked for.
    pub plan: Option<String>,
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        let shipped: usize = self.shipped.values().map(|stream| stream.len()).sum();
        let mut out = Vec::with_capacity(self.plan.len() + shipped + 1024);
        write_uint(&mut out, PROTOCOL);
        write_uint(&mut out, self.catalog_version);
        write_uint(&mut out, self.time_left_ms);
        write_uint(&mut out, self.memory_bytes_max);
        write_bool(&mut out, self.analyze);
        write_query(&mut out, self.query.as_ref());
        write_map_len(&mut out, self.buckets.len());
        for (scan, ranges) in &self.buckets {
            write_uint(&mut out, (*scan).into());
            write_array_len(&mut out, ranges.len() * 2);
            ranges.iter().flat_map(|range| [range.first, range.last]).for_each(|at| write_uint(&mut out, at.into()));
        }
        write_map_len(&mut out, self.shipped.len());
        for (leaf, stream) in &self.shipped {
            write_uint(&mut out, (*leaf).into());
            write_bin(&mut out, stream);
        }
        write_bin(&mut out, &self.plan);
        out
    }

    /// Errors: `Argument` for anything but a request of this protocol.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.uint()? != PROTOCOL {
            return Err(Error::new(Code::Argument, "a fragment of another version of the module"));
        }
        let mut request = Request {
            catalog_version: reader.uint()?,
            time_left_ms: reader.uint()?,
            memory_bytes_max: reader.uint()?,
            analyze: reader.bool()?,
            query: read_query(&mut reader)?,
            ..Request::default()
        };
        for _ in 0..reader.map_len()? {
            let scan = id(&mut reader)?;
            let len = reader.array_len()?;
            let ranges = (0..len / 2).map(|_| Ok(BucketRange::new(id(&mut reader)?, id(&mut reader)?)));
            request.buckets.insert(scan, ranges.collect::<Result<_>>()?);
        }
        for _ in 0..reader.map_len()? {
            let leaf = id(&mut reader)?;
            request.shipped.insert(leaf, Arc::new(reader.bin()?.to_vec()));
        }
        request.plan = reader.bin()?.to_vec();
        Ok(request)
    }
}

fn write_query(out: &mut Vec<u8>, query: Option<&(QueryKey, Vec<TableId>)>) {
    let Some((key, tables)) = query else { return write_nil(out) };
    write_str(out, key.router.as_str());
    write_uint(out, key.number);
    write_array_len(out, tables.len());
    tables.iter().for_each(|table| write_uint(out, (*table).into()));
}

fn read_query(reader: &mut Reader<'_>) -> Result<Option<(QueryKey, Vec<TableId>)>> {
    if reader.take_nil() {
        return Ok(None);
    }
    let key = QueryKey { router: reader.str()?.into(), number: reader.uint()? };
    let len = reader.array_len()?;
    Ok(Some((key, (0..len).map(|_| id(reader)).collect::<Result<_>>()?)))
}

fn id(reader: &mut Reader<'_>) -> Result<u32> {
    u32::try_from(reader.uint()?).map_err(|_| broken())
}

fn broken() -> Error {
    Error::new(Code::Argument, "a fragment's answer is broken")
}

fn arrow(error: ArrowError) -> Error {
    Error::internal(format!("rows did not fit a frame: {error}"))
}

/// Turns batches of one schema into frames.
pub struct Encoder {
    writer: Option<StreamWriter<Vec<u8>>>,
    rows: u64,
    bytes: u64,
}

impl Encoder {
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let writer = match is_hollow(schema) {
            true => None,
            false => Some(StreamWriter::try_new(Vec::new(), schema).map_err(arrow)?),
        };
        Ok(Self { writer, rows: 0, bytes: 0 })
    }

    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        match &mut self.writer {
            Some(writer) if batch.num_rows() > 0 => {
                writer.write(&compact(batch)?).map_err(arrow)?;
                let body = std::mem::take(writer.get_mut());
                frame.reserve_exact(HEAD_BYTES + body.len());
                frame.resize(HEAD_BYTES, 0);
                frame.extend_from_slice(&body);
            }
            _ => frame.resize(HEAD_BYTES, 0),
        }
        frame[0] = KIND_BATCH;
        let rows = u32::try_from(batch.num_rows()).map_err(|_| Error::internal("a batch of too many rows"))?;
        frame[4..8].copy_from_slice(&rows.to_le_bytes());
        self.rows += u64::from(rows);
        self.bytes += frame.len() as u64;
        Ok(frame)
    }

    pub fn end(&self, elapsed_us: u64, plan: Option<String>) -> Vec<u8> {
        let mut frame = vec![0; HEAD_BYTES];
        frame[0] = KIND_END;
        write_uint(&mut frame, self.rows);
        write_uint(&mut frame, self.bytes);
        write_uint(&mut frame, elapsed_us);
        match plan {
            Some(plan) => write_str(&mut frame, &plan),
            None => write_nil(&mut frame),
        }
        frame
    }
}

/// Whether batches of this schema have no bytes: without columns, or with columns that are all NULL.
fn is_hollow(schema: &SchemaRef) -> bool {
    schema.fields().iter().all(|field| field.data_type().is_null())
}

/// A batch whose number of rows says it all.
fn hollow(schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|_| broken())
}

pub fn error_frame(error: &Error) -> Vec<u8> {
    let mut frame = vec![0; HEAD_BYTES];
    frame[0] = KIND_ERROR;
    write_uint(&mut frame, error.number().into());
    write_str(&mut frame, &error.message);
    match &error.hint {
        Some(hint) => write_str(&mut frame, hint),
        None => write_nil(&mut frame),
    }
    frame
}

/// Views may point into buffers much larger than what they show of them, and IPC writes whole buffers.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let wasteful = |array: &ArrayRef| matches!(array.data_type(), DataType::Utf8View | DataType::BinaryView);
    if !batch.columns().iter().any(wasteful) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(|array| {
        if let Some(view) = array.as_any().downcast_ref::<StringViewArray>() {
            return Arc::new(view.gc()) as ArrayRef;
        }
        match array.as_any().downcast_ref::<BinaryViewArray>() {
            Some(view) => Arc::new(view.gc()) as ArrayRef,
            None => array.clone(),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options).map_err(arrow)
}

/// What a frame says.
#[derive(Debug)]
pub enum Frame {
    Batch(RecordBatch),
    End(Summary),
}

/// Turns the frames of one fragment into batches.
pub struct FrameDecoder {
    schema: SchemaRef,
    stream: StreamDecoder,
}

impl FrameDecoder {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, stream: StreamDecoder::new() }
    }

    /// Errors: the fragment's own error, or `Argument` when the bytes are no frame of it.
    pub fn decode(&mut self, frame: Vec<u8>) -> Result<Frame> {
        let head: [u8; HEAD_BYTES] = *frame.first_chunk().ok_or_else(broken)?;
        match head[0] {
            KIND_BATCH => {
                let rows = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                self.batch(rows as usize, frame).map(Frame::Batch)
            }
            KIND_END => {
                let mut reader = Reader::new(&frame[HEAD_BYTES..]);
                let (rows, bytes, elapsed_us) = (reader.uint()?, reader.uint()?, reader.uint()?);
                let plan = if reader.take_nil() { None } else { Some(reader.str()?.to_owned()) };
                Ok(Frame::End(Summary { rows, bytes, elapsed_us, plan }))
            }
            KIND_ERROR => {
                let mut reader = Reader::new(&frame[HEAD_BYTES..]);
                let number = u32::try_from(reader.uint()?).map_err(|_| broken())?;
                let code = Code::from_number(number).unwrap_or(Code::Internal);
                let error = Error::new(code, reader.str()?);
                Err(if reader.take_nil() { error } else { error.with_hint(reader.str()?) })
            }
            _ => Err(broken()),
        }
    }

    fn batch(&mut self, rows: usize, frame: Vec<u8>) -> Result<RecordBatch> {
        if rows == 0 {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        if is_hollow(&self.schema) {
            return hollow(&self.schema, rows);
        }
        let mut body = Buffer::from_vec(frame).slice(HEAD_BYTES);
        let batch = self.stream.decode(&mut body).map_err(|_| broken())?.ok_or_else(broken)?;
        if batch.num_rows() != rows || !body.is_empty() {
            return Err(broken());
        }
        // The planner's schema knows of metadata and nullability that rows need not carry.
        RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec()).map_err(|_| broken())
    }
}

/// Rows that travel with a request: their number, because IPC loses rows without columns, then one IPC stream.
pub fn ship(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut writer = StreamWriter::try_new((rows as u64).to_le_bytes().to_vec(), schema).map_err(arrow)?;
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0 && !is_hollow(schema)) {
        writer.write(&compact(batch)?).map_err(arrow)?;
    }
    writer.into_inner().map_err(arrow)
}

/// The schema and the rows of such a stream.
///
/// Errors: `Argument` when the bytes are none.
pub fn unship(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let (rows, stream) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(stream);
    let mut batches = Vec::new();
    while !rest.is_empty() {
        match decoder.decode(&mut rest).map_err(|_| broken())? {
            Some(batch) => batches.push(batch),
            None => break,
        }
    }
    let schema = decoder.schema().ok_or_else(broken)?;
    if is_hollow(&schema) {
        let rows = usize::try_from(u64::from_le_bytes(*rows)).ok().filter(|rows| *rows <= HOLLOW_ROWS_MAX);
        batches = vec![hollow(&schema, rows.ok_or_else(broken)?)?];
    }
    Ok((schema, batches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    fn batch(rows: i64, columns: usize) -> RecordBatch {
        let fields: Vec<Field> = (0..columns).map(|n| Field::new(format!("c{n}"), DataType::Int64, true)).collect();
        let arrays = fields.iter().map(|_| Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).unwrap()
    }

    #[test]
    fn batches_with_and_without_columns_keep_their_rows() {
        for columns in [0, 1, 3] {
            let schema = batch(0, columns).schema();
            let (mut encoder, mut decoder) = (Encoder::new(&schema).unwrap(), FrameDecoder::new(schema.clone()));
            for rows in [5, 0, 9000] {
                let frame = encoder.batch(&batch(rows, columns)).unwrap();
                let Frame::Batch(back) = decoder.decode(frame).unwrap() else { panic!("not a batch") };
                assert_eq!(back, batch(rows, columns));
            }
            let Frame::End(summary) = decoder.decode(encoder.end(7, Some("plan".into()))).unwrap() else {
                panic!("not an end")
            };
            assert_eq!((summary.rows, summary.elapsed_us, summary.plan.as_deref()), (9005, 7, Some("plan")));
            let (shipped_schema, shipped) =
                unship(&ship(&schema, &[batch(4, columns), batch(3, columns)]).unwrap()).unwrap();
            assert_eq!(shipped_schema, schema);
            assert_eq!(shipped.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
        }
    }

    #[test]
    fn columns_of_nothing_but_null_keep_their_rows() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Null, true)]));
        let rows = hollow(&schema, 5).unwrap();
        let frame = Encoder::new(&schema).unwrap().batch(&rows).unwrap();
        let Frame::Batch(back) = FrameDecoder::new(schema.clone()).decode(frame).unwrap() else { panic!("no batch") };
        assert_eq!(back, rows);
        assert_eq!(unship(&ship(&schema, std::slice::from_ref(&rows)).unwrap()).unwrap().1, [rows]);
    }

    #[test]
    fn errors_arrive_as_they_were() {
        let error = Error::new(Code::WrongBucket, "the bucket moved").with_hint("ask again");
        assert_eq!(FrameDecoder::new(batch(0, 1).schema()).decode(error_frame(&error)).unwrap_err(), error);
    }

    proptest! {
        #[test]
        fn requests_round_trip(version: u64, ms in 0u64..1 << 40, ranges in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5), plan: Vec<u8>, rows: Vec<u8>) {
            let buckets = ranges.iter().map(|(first, last)| BucketRange::new(*first, *last)).collect();
            let request = Request {
                catalog_version: version >> 1,
                time_left_ms: ms,
                memory_bytes_max: ms,
                analyze: ms % 2 == 0,
                query: (ms % 3 > 0).then(|| (QueryKey { router: "i1".into(), number: ms }, vec![512, 600])),
                buckets: [(3, buckets)].into(),
                shipped: [(0, Arc::new(rows))].into(),
                plan,
            };
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(kind in 0u8..5, mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = FrameDecoder::new(batch(0, 2).schema()).decode(bytes.clone());
            let _ = Request::decode(&bytes);
            let _ = unship(&bytes);
        }
    }
}
