//! Types and values that the tests of this room draw from.

use model::{ColumnType, Value};
use proptest::prelude::*;

pub fn any_type() -> impl Strategy<Value = ColumnType> {
    use ColumnType::*;
    prop_oneof![
        Just(Boolean),
        Just(SmallInt),
        Just(Integer),
        Just(BigInt),
        Just(Unsigned),
        Just(Real),
        Just(Double),
        (1u8..=38).prop_flat_map(|precision| { (0..=precision).prop_map(move |scale| Decimal { precision, scale }) }),
        (1u32..6).prop_map(|length| Char { length }),
        (1u32..6).prop_map(|length| Varchar { length }),
        Just(Text),
        Just(Varbinary),
        Just(Uuid),
        Just(Date),
        Just(Time),
        Just(Timestamp),
        Just(TimestampTz),
        Just(Json),
    ]
}

/// Values as users send them: near the edges of the types, and texts that some types read.
pub fn sent_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        (any::<i64>(), 0u32..64).prop_map(|(i, shift)| Value::Integer(i >> shift)),
        prop_oneof![any::<f64>(), any::<f32>().prop_map(f64::from), Just(3.0)]
            .prop_filter("equal to itself", |d| !d.is_nan())
            .prop_map(Value::Double),
        (any::<i64>(), 0u8..=38).prop_map(|(u, s)| Value::Decimal(model::Decimal::new(u.into(), s))),
        "[aé ]{0,8}".prop_map(Value::Text),
        prop_oneof![Just("2013-01-31"), Just("05:00"), Just("2013-01-31 05:00:00Z"), Just("{\"a\": [1]}"), Just("{")]
            .prop_map(|text| Value::Text(text.into())),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        any::<[u8; 16]>().prop_map(Value::Uuid),
    ]
}
