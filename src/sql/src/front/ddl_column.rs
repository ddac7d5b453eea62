//! A column of CREATE TABLE or ALTER TABLE ... ADD COLUMN, with its default.

use super::ddl::no_foreign_keys;
use super::ddl_sequence::identity_sequence;
use super::literal::default_value;
use super::parse::{Source, fold};
use super::program::{Class, Scope, compile, goes_into};
use super::statement::{ColumnDraft, DefaultDraft, Name};
use super::types::column_type;
use model::program::Surroundings;
use model::sequence::CACHE_DEFAULT;
use model::table::ROW_ID;
use model::{Code, ColumnType, Error, Generated, Result, Sequence, Value};
use sqlparser::ast::{ColumnDef, ColumnOption, DataType, Expr, FunctionArguments, GeneratedAs};

/// Numbers of hidden keys that an instance leases at once.
const HIDDEN_KEYS_CACHE: u32 = 100 * CACHE_DEFAULT;

pub(super) fn column(source: &Source, definition: &ColumnDef) -> Result<ColumnDraft> {
    let name = fold(&definition.name);
    if name.text == ROW_ID {
        return Err(source.unsupported(&format!("a column named \"{ROW_ID}\""), name.at));
    }
    let in_column = |mut error: Error| {
        error.message = format!("column \"{}\": {}", name.text, error.message);
        error
    };
    let (ty, serial) = match serial_type(&definition.data_type) {
        Some(ty) => (ty, true),
        None => (column_type(&definition.data_type).map_err(in_column)?, false),
    };
    let mut draft = ColumnDraft {
        name: name.clone(),
        ty,
        nullable: None,
        default: None,
        primary: false,
        unique: None,
        checks: Vec::new(),
    };
    if serial {
        let generated = Generated::Identity { sequence: identity_sequence(source, ty, &[])?, always: false };
        (draft.default, draft.nullable) = (Some(DefaultDraft::Generated(generated)), Some(false));
    }
    for option in &definition.options {
        let constraint = option.name.as_ref().map(fold);
        match &option.option {
            ColumnOption::Null => draft.nullable = Some(true),
            ColumnOption::NotNull => draft.nullable = Some(false),
            ColumnOption::PrimaryKey(_) => draft.primary = true,
            ColumnOption::Unique(_) => draft.unique = Some(constraint),
            ColumnOption::Check(check) => draft.checks.push((constraint, (*check.expr).clone())),
            ColumnOption::ForeignKey(_) => return Err(no_foreign_keys()),
            ColumnOption::Default(expr) => {
                once(source, &draft)?;
                draft.default = Some(default_of(expr, ty).map_err(in_column)?);
            }
            ColumnOption::Generated { generated_as, sequence_options, generation_expr: None, .. } => {
                once(source, &draft)?;
                draft.default = Some(identity(source, ty, *generated_as, sequence_options.as_deref())?);
                draft.nullable = Some(false);
            }
            ColumnOption::Generated { .. } => return Err(source.unsupported("a generated column", name.at)),
            other => return Err(source.unsupported(&format!("\"{other}\" of column \"{}\"", name.text), name.at)),
        }
    }
    Ok(draft)
}

fn once(source: &Source, draft: &ColumnDraft) -> Result<()> {
    let what = format!("column \"{}\" has more than one default", draft.name.text);
    match draft.default {
        None => Ok(()),
        Some(_) => Err(super::position::error_at(Code::InvalidStatement, what, source.text, draft.name.at)),
    }
}

fn identity(
    source: &Source,
    ty: ColumnType,
    generated_as: GeneratedAs,
    options: Option<&[sqlparser::ast::SequenceOptions]>,
) -> Result<DefaultDraft> {
    if !ty.is_integer() {
        return Err(Error::new(Code::WrongType, format!("an identity column is of an integer type, not {ty}")));
    }
    let sequence = identity_sequence(source, ty, options.unwrap_or(&[]))?;
    let always = generated_as == GeneratedAs::Always;
    Ok(DefaultDraft::Generated(Generated::Identity { sequence, always }))
}

/// SERIAL and its kin.
fn serial_type(ty: &DataType) -> Option<ColumnType> {
    let DataType::Custom(name, modifiers) = ty else { return None };
    let ty = match name.to_string().to_lowercase().as_str() {
        "serial" | "serial4" => ColumnType::Integer,
        "bigserial" | "serial8" => ColumnType::BigInt,
        "smallserial" | "serial2" => ColumnType::SmallInt,
        _ => return None,
    };
    modifiers.is_empty().then_some(ty)
}

/// The column that numbers the rows of a table without a primary key.
pub(super) fn hidden_key() -> ColumnDraft {
    let sequence = Sequence { cache: HIDDEN_KEYS_CACHE, ..Sequence::default() };
    ColumnDraft {
        name: Name { text: ROW_ID.to_owned(), at: None },
        ty: ColumnType::BigInt,
        nullable: Some(false),
        default: Some(DefaultDraft::Generated(Generated::Identity { sequence, always: true })),
        primary: false,
        unique: None,
        checks: Vec::new(),
    }
}

/// A default as it was written, for a column of this type.
///
/// Errors: those of the expression; `WrongType` and `ValueOutOfRange` when its value does not fit the column.
pub(super) fn default_of(expr: &Expr, ty: ColumnType) -> Result<DefaultDraft> {
    if let Some(value) = default_value(expr, ty) {
        return value.map(DefaultDraft::Constant);
    }
    if let Some(name) = nextval_of(expr) {
        if !ty.is_integer() {
            return Err(Error::new(Code::WrongType, format!("nextval is a bigint, the column's type is {ty}")));
        }
        return Ok(DefaultDraft::Generated(Generated::NextOf { name, sequence: Sequence::default() }));
    }
    let (program, class) = compile(expr, Scope { table: "", columns: &[], is_default: true })?;
    if program.is_constant() {
        return program.evaluate(&Nothing)?.coerce(ty).map(DefaultDraft::Constant);
    }
    if class != Class::Null && !goes_into(class, ty) {
        return Err(Error::new(Code::WrongType, format!("DEFAULT {expr} does not fit the type {ty}")));
    }
    Ok(DefaultDraft::Generated(Generated::Computed(program)))
}

/// What constant expressions need: nothing.
struct Nothing;

impl Surroundings for Nothing {
    fn column(&self, _: usize) -> Result<Value> {
        Err(Error::internal("a default reads a column"))
    }
}

/// The name of the sequence in `nextval('name')`.
pub(super) fn nextval_of(expr: &Expr) -> Option<String> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [sqlparser::ast::FunctionArg::Unnamed(sqlparser::ast::FunctionArgExpr::Expr(arg))] = &list.args[..] else {
        return None;
    };
    if !function.name.to_string().eq_ignore_ascii_case("nextval") {
        return None;
    }
    let arg = match arg {
        // 'name'::regclass, as dumps of PostgreSQL have it.
        Expr::Cast { expr, .. } => expr,
        other => other,
    };
    match super::literal::constant(arg) {
        Some(Ok(Value::Text(name))) => Some(match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => name.to_lowercase(),
        }),
        _ => None,
    }
}
