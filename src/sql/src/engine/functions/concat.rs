//! Texts put together: `||`, `concat`, `concat_ws`. The engine's own would make any amount of it.

use super::{Function, call, each_row, is_text, nullable, text, wrong_types};
use crate::engine::bounds::Texts;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray};
use datafusion::arrow::compute::{can_cast_types, cast};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use std::sync::{Arc, LazyLock};

static OPERATOR: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Function::new("concatenate", operands, as_operands, concatenate).operator("||").udf());

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        OPERATOR.clone(),
        Function::new("concat", |types| as_texts(types, "concat", 1), text, concat).udf(),
        Function::new("concat_ws", |types| as_texts(types, "concat_ws", 2), text, concat_ws).udf(),
    ]
}

/// `left || right`, of texts and what becomes one beside a text. A chain of them is one call.
pub fn concatenated(left: Expr, right: Expr) -> Expr {
    let mut args = match left {
        Expr::ScalarFunction(chain) if chain.func.name() == OPERATOR.name() => chain.args,
        left => vec![left],
    };
    args.push(right);
    call(OPERATOR.clone(), args)
}

/// What `||` takes: a text first or second, so that all before any other is a text. And of which type of texts the engine has
/// it: a row of VALUES knows its types before this function is chosen.
fn operands(types: &[DataType]) -> DfResult<Vec<DataType>> {
    let [first, others @ ..] = types else { return wrong_types("||") };
    let mut all = first.clone();
    for ty in others {
        match BinaryTypeCoercer::new(&all, &Operator::StringConcat, ty).get_result_type() {
            Ok(ty) => all = ty,
            Err(_) => return wrong_types("||"),
        }
    }
    Ok(vec![all; types.len()])
}

fn as_operands(args: &ReturnFieldArgs<'_>) -> DfResult<Field> {
    let ty = args.arg_fields.first().map_or(DataType::Utf8View, |field| field.data_type().clone());
    Ok(nullable(ty).with_nullable(args.arg_fields.iter().any(|field| field.is_nullable())))
}

fn as_texts(types: &[DataType], name: &str, required: usize) -> DfResult<Vec<DataType>> {
    let is_taken = |ty: &DataType| is_text(ty) || !ty.is_nested() && can_cast_types(ty, &DataType::Utf8View);
    if types.len() < required || !types.iter().all(is_taken) {
        return wrong_types(name);
    }
    Ok(vec![DataType::Utf8View; types.len()])
}

/// NULL where anything is.
fn concatenate(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    if call.return_field.data_type().is_binary() {
        return concatenate_bytes(args, call);
    }
    let args = args.iter().map(|arg| cast(arg, &DataType::Utf8View)).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<_> = args.iter().map(|arg| arg.as_string_view()).collect();
    let mut made = String::new();
    let all = each_row(&args, |row, texts| {
        made.clear();
        made.extend(parts.iter().map(|part| part.value(row)));
        texts.made.append_value(&made);
        Ok(())
    })?;
    Ok(cast(&all, call.return_field.data_type())?)
}

fn concatenate_bytes(args: &[ArrayRef], call: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let args = args.iter().map(|arg| cast(arg, &DataType::BinaryView)).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<_> = args.iter().map(|arg| arg.as_binary_view()).collect();
    let all = (0..args[0].len()).map(|row| {
        let is_valid = parts.iter().all(|part| part.is_valid(row));
        is_valid.then(|| parts.iter().flat_map(|part| part.value(row)).copied().collect::<Vec<u8>>())
    });
    Ok(cast(&all.collect::<BinaryViewArray>(), call.return_field.data_type())?)
}

/// NULLs are nothing.
fn concat(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let parts: Vec<_> = args.iter().map(|arg| arg.as_string_view()).collect();
    let (mut texts, mut made) = (Texts::new(args[0].len()), String::new());
    for row in 0..args[0].len() {
        made.clear();
        made.extend(parts.iter().filter(|part| part.is_valid(row)).map(|part| part.value(row)));
        texts.made.append_value(&made);
    }
    Ok(texts.finish())
}

/// The first is between the others, of which NULLs are left out; NULL where it is NULL itself.
fn concat_ws(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let (separators, parts) = (args[0].as_string_view(), &args[1..]);
    let parts: Vec<_> = parts.iter().map(|part| part.as_string_view()).collect();
    let mut made = String::new();
    each_row(&args[..1], |row, texts| {
        made.clear();
        for (at, part) in parts.iter().filter(|part| part.is_valid(row)).enumerate() {
            let separator = if at > 0 { separators.value(row) } else { "" };
            texts.reserve(separator.len())?;
            made.push_str(separator);
            made.push_str(part.value(row));
        }
        texts.made.append_value(&made);
        Ok(())
    })
}
