//! SUM and AVG that are exact: over integers and decimals, sums are kept in 128 bits and what does not fit is an error, where the
//! engine's own wrap around; averages of decimals have as many digits as quotients have.
//!
//! Over other types the engine's own functions work. A partial state is the sum and the number of values, or for DISTINCT
//! the list of values.

use super::arithmetic::quotient;
use super::{out_of_range, wrong_types};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, ListArray};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature};
use datafusion::scalar::ScalarValue;
use std::collections::HashSet;
use std::sync::Arc;

const PRECISION: u8 = 38;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let make = |kind| Arc::new(AggregateUDF::from(Exact { kind, sum: Sum::new(), avg: Avg::new() }));
    vec![make(Kind::Sum), make(Kind::Average)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Average,
}

/// `sum` or `avg`, in the place of the engine's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    kind: Kind,
    sum: Sum,
    avg: Avg,
}

/// How a result follows from a sum and a count.
#[derive(Clone, Debug)]
struct Finish {
    kind: Kind,
    /// Digits after the point of what is added up.
    scale: i8,
    result: DataType,
}

impl Exact {
    fn inner(&self) -> &dyn AggregateUDFImpl {
        match self.kind {
            Kind::Sum => &self.sum,
            Kind::Average => &self.avg,
        }
    }

    /// None where the engine's own function works.
    fn finish(&self, input: &DataType) -> Option<Finish> {
        let (scale, result) = match (self.kind, input) {
            (Kind::Sum, DataType::Int64) => (0, DataType::Int64),
            (Kind::Sum, DataType::Decimal128(_, scale)) => (*scale, DataType::Decimal128(PRECISION, *scale)),
            (Kind::Average, DataType::Decimal128(_, scale)) => {
                (*scale, DataType::Decimal128(PRECISION, super::arithmetic::quotient_scale(*scale, 0)))
            }
            _ => return None,
        };
        Some(Finish { kind: self.kind, scale, result })
    }

    fn finish_of(&self, fields: &[FieldRef]) -> Option<Finish> {
        fields.first().and_then(|field| self.finish(field.data_type()))
    }
}

impl Finish {
    fn state_type(&self) -> DataType {
        DataType::Decimal128(PRECISION, self.scale)
    }

    /// The values of a batch, as they are added up.
    fn values(&self, array: &ArrayRef) -> DfResult<Vec<Option<i128>>> {
        Ok(match array.data_type() {
            DataType::Int64 => array.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect(),
            DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().iter().collect(),
            _ => return wrong_types("sum"),
        })
    }

    fn result(&self, sum: i128, count: i64) -> DfResult<Option<i128>> {
        if count == 0 {
            return Ok(None);
        }
        let value = match (self.kind, &self.result) {
            (Kind::Sum, DataType::Int64) => i64::try_from(sum).map_err(|_| out_of_range())?.into(),
            (Kind::Average, DataType::Decimal128(_, scale)) => {
                quotient(sum, count.into(), (scale - self.scale).unsigned_abs())?
            }
            _ => sum,
        };
        match &self.result {
            DataType::Int64 => Ok(Some(value)),
            _ if value.unsigned_abs() < 10_u128.pow(PRECISION.into()) => Ok(Some(value)),
            _ => Err(out_of_range()),
        }
    }

    fn array(&self, values: Vec<Option<i128>>) -> DfResult<ArrayRef> {
        Ok(match &self.result {
            DataType::Decimal128(precision, scale) => {
                Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?)
            }
            _ => Arc::new(values.into_iter().map(|v| v.and_then(|v| i64::try_from(v).ok())).collect::<Int64Array>()),
        })
    }

    fn scalar(&self, value: Option<i128>) -> ScalarValue {
        match &self.result {
            DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(value, *precision, *scale),
            _ => ScalarValue::Int64(value.and_then(|value| i64::try_from(value).ok())),
        }
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.inner().name()
    }

    fn aliases(&self) -> &[String] {
        self.inner().aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner().signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner().coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types.first().and_then(|ty| self.finish(ty)) {
            Some(finish) => Ok(finish.result),
            None => self.inner().return_type(types),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let Some(finish) = self.finish_of(args.input_fields) else { return self.inner().state_fields(args) };
        let sum = finish.state_type();
        if args.is_distinct {
            let items = Field::new_list_field(sum, true);
            return Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "distinct"), items, true))]);
        }
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "sum"), sum, true)),
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match self.finish_of(args.expr_fields) {
            None => self.inner().accumulator(args),
            Some(finish) if args.is_distinct => Ok(Box::new(Distinct { finish, values: HashSet::new() })),
            Some(finish) => Ok(Box::new(Running { finish, sum: 0, count: 0 })),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match self.finish_of(args.expr_fields) {
            Some(_) => self.accumulator(args),
            None => self.inner().create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match self.finish_of(args.expr_fields) {
            Some(_) => !args.is_distinct,
            None => self.inner().groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        match self.finish_of(args.expr_fields) {
            Some(finish) => Ok(Box::new(Groups { finish, sums: Vec::new(), counts: Vec::new() })),
            None => self.inner().create_groups_accumulator(args),
        }
    }
}

/// One group.
#[derive(Debug)]
struct Running {
    finish: Finish,
    sum: i128,
    count: i64,
}

impl Running {
    fn add(&mut self, values: &[Option<i128>], forwards: bool) -> DfResult<()> {
        for value in values.iter().flatten() {
            let (sum, count) = match forwards {
                true => (self.sum.checked_add(*value), self.count + 1),
                false => (self.sum.checked_sub(*value), self.count - 1),
            };
            (self.sum, self.count) = (sum.ok_or_else(out_of_range)?, count);
        }
        Ok(())
    }
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.finish.values(&values[0])?;
        self.add(&values, true)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.finish.values(&values[0])?;
        self.add(&values, false)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.finish.result(self.sum, self.count).map(|value| self.finish.scalar(value))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let sum = ScalarValue::Decimal128(Some(self.sum), PRECISION, self.finish.scale);
        Ok(vec![sum, ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let (sums, counts) = (states[0].as_primitive::<Decimal128Type>(), states[1].as_primitive::<Int64Type>());
        for (sum, count) in sums.iter().zip(counts) {
            self.sum = self.sum.checked_add(sum.unwrap_or(0)).ok_or_else(out_of_range)?;
            self.count += count.unwrap_or(0);
        }
        Ok(())
    }
}

/// One group, each value once.
#[derive(Debug)]
struct Distinct {
    finish: Finish,
    values: HashSet<i128>,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.values.extend(self.finish.values(&values[0])?.into_iter().flatten());
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let sum = self.values.iter().try_fold(0_i128, |sum, value| sum.checked_add(*value)).ok_or_else(out_of_range)?;
        self.finish.result(sum, self.values.len() as i64).map(|value| self.finish.scalar(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<i128>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let ty = self.finish.state_type();
        let values: Vec<ScalarValue> = self
            .values
            .iter()
            .map(|value| ScalarValue::Decimal128(Some(*value), PRECISION, self.finish.scale))
            .collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &ty))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let lists: &ListArray = states[0].as_list();
        for list in lists.iter().flatten() {
            self.values.extend(list.as_primitive::<Decimal128Type>().iter().flatten());
        }
        Ok(())
    }
}

/// Many groups at once.
#[derive(Debug)]
struct Groups {
    finish: Finish,
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl Groups {
    fn add(
        &mut self,
        values: impl Iterator<Item = (usize, Option<i128>)>,
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> DfResult<()> {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
        for (row, (group, value)) in values.enumerate() {
            let Some(value) = value else { continue };
            if filter.is_some_and(|filter| !(filter.is_valid(row) && filter.value(row))) {
                continue;
            }
            self.sums[group] = self.sums[group].checked_add(value).ok_or_else(out_of_range)?;
            self.counts[group] += 1;
        }
        Ok(())
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> DfResult<()> {
        let groups = groups.iter().copied();
        match values[0].data_type() {
            DataType::Int64 => {
                let values = values[0].as_primitive::<Int64Type>().iter();
                self.add(groups.zip(values.map(|value| value.map(i128::from))), filter, total)
            }
            DataType::Decimal128(..) => {
                self.add(groups.zip(values[0].as_primitive::<Decimal128Type>().iter()), filter, total)
            }
            _ => wrong_types("sum"),
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DfResult<ArrayRef> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        let values = sums.into_iter().zip(counts).map(|(sum, count)| self.finish.result(sum, count));
        self.finish.array(values.collect::<DfResult<_>>()?)
    }

    fn state(&mut self, emit_to: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        let sums = Decimal128Array::from(sums).with_precision_and_scale(PRECISION, self.finish.scale)?;
        Ok(vec![Arc::new(sums), Arc::new(Int64Array::from(counts))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.sums.resize(total, 0);
        self.counts.resize(total, 0);
        let (sums, counts) = (states[0].as_primitive::<Decimal128Type>(), states[1].as_primitive::<Int64Type>());
        for ((group, sum), count) in groups.iter().zip(sums).zip(counts) {
            self.sums[*group] = self.sums[*group].checked_add(sum.unwrap_or(0)).ok_or_else(out_of_range)?;
            self.counts[*group] += count.unwrap_or(0);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let counted = |row: usize, value: &Option<i128>| {
            value.is_some() && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let values = self.finish.values(&values[0])?;
        let counts: Vec<i64> = values.iter().enumerate().map(|(row, value)| counted(row, value).into()).collect();
        let sums = values.iter().zip(&counts).map(|(value, count)| if *count > 0 { value.unwrap_or(0) } else { 0 });
        let sums = Decimal128Array::from_iter_values(sums).with_precision_and_scale(PRECISION, self.finish.scale)?;
        Ok(vec![Arc::new(sums), Arc::new(Int64Array::from(counts))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<i64>()
    }
}
