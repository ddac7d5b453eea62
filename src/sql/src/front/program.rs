//! Expressions of a table's definition, compiled for `model::program`: names become positions, types are checked, and
//! literals take the type of what they are compared with.
//!
//! The language is a part of the queries' one: what it takes, it means the same. What it does not take is refused by
//! name.

use super::literal;
use super::parse::fold;
use super::types::column_type;
use model::program::{Comparison, STEPS_MAX, Step};
use model::{Code, ColumnType, Error, Program, Result, Value};
use sqlparser::ast::{BinaryOperator, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator};

/// What an expression may use.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The table, as a qualifier.
    pub table: &'a str,
    /// Name, position and type of each column that may be named; none in a default.
    pub columns: &'a [(String, usize, ColumnType)],
    /// Whether the time and chance may play a part.
    pub is_default: bool,
}

/// Types as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Null,
    Boolean,
    Number,
    Text,
    Bytes,
    Uuid,
    Date,
    Time,
    Timestamp,
}

/// Compiles a condition.
///
/// Errors: `Unsupported`, `NoSuchColumn`, `WrongType`, `LimitExceeded`.
pub(super) fn condition(expr: &Expr, scope: Scope<'_>) -> Result<Program> {
    let (program, class) = compile(expr, scope)?;
    match class {
        Class::Boolean | Class::Null => Ok(program),
        _ => Err(Error::new(Code::WrongType, format!("{expr} is no condition"))),
    }
}

/// Compiles an expression.
///
/// Errors: as `condition`.
pub(super) fn compile(expr: &Expr, scope: Scope<'_>) -> Result<(Program, Class)> {
    let mut compiler = Compiler { scope, steps: Vec::new() };
    let class = compiler.expr(expr, None)?;
    Ok((Program { text: expr.to_string(), steps: compiler.steps }, class))
}

struct Compiler<'a> {
    scope: Scope<'a>,
    steps: Vec<Step>,
}

/// The types of columns by what they are compared as.
fn class_of(ty: ColumnType) -> Class {
    use ColumnType as T;
    match ty {
        T::Boolean => Class::Boolean,
        T::SmallInt | T::Integer | T::BigInt | T::Unsigned | T::Real | T::Double | T::Decimal { .. } => Class::Number,
        T::Char { .. } | T::Varchar { .. } | T::Text | T::Json => Class::Text,
        T::Varbinary => Class::Bytes,
        T::Uuid => Class::Uuid,
        T::Date => Class::Date,
        T::Time => Class::Time,
        T::Timestamp | T::TimestampTz => Class::Timestamp,
    }
}

/// Whether values of this kind can be put into a column of type `ty`.
pub(super) fn goes_into(class: Class, ty: ColumnType) -> bool {
    let wanted = class_of(ty);
    // A moment can be cut to its date; a text may spell anything but a number.
    class == wanted
        || (class == Class::Timestamp && wanted == Class::Date)
        || (class == Class::Date && wanted == Class::Timestamp)
        || (class == Class::Text && wanted != Class::Number && wanted != Class::Boolean)
}

fn class_of_value(value: &Value) -> Class {
    match value {
        Value::Null | Value::Array(_) => Class::Null,
        Value::Boolean(_) => Class::Boolean,
        Value::Integer(_) | Value::Double(_) | Value::Decimal(_) => Class::Number,
        Value::Text(_) => Class::Text,
        Value::Bytes(_) => Class::Bytes,
        Value::Uuid(_) => Class::Uuid,
        Value::Date(_) => Class::Date,
        Value::Time(_) => Class::Time,
        Value::Timestamp(_) | Value::TimestampTz(_) => Class::Timestamp,
    }
}

impl Compiler<'_> {
    fn push(&mut self, step: Step, class: Class) -> Result<Class> {
        if self.steps.len() >= STEPS_MAX {
            let message = format!("an expression of a table's definition has at most {STEPS_MAX} parts");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        self.steps.push(step);
        Ok(class)
    }

    /// Appends the steps of an expression. A literal becomes one of type `like`, if it is given. Recurses as deep as the
    /// parser, which has bounded it.
    fn expr(&mut self, expr: &Expr, like: Option<ColumnType>) -> Result<Class> {
        if let Some(value) = literal::constant(expr) {
            return self.literal(value?, like);
        }
        match expr {
            Expr::Nested(inner) => self.expr(inner, like),
            Expr::Identifier(ident) => self.column(&fold(ident).text),
            Expr::CompoundIdentifier(parts) => match &parts[..] {
                [table, column] if fold(table).text == self.scope.table => self.column(&fold(column).text),
                _ => Err(unsupported(expr)),
            },
            Expr::UnaryOp { op, expr: operand } => self.unary(op, operand),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(inner) => self.test(inner, None, Step::IsNull, false),
            Expr::IsNotNull(inner) => self.test(inner, None, Step::IsNull, true),
            Expr::IsTrue(inner) => self.test(inner, Some(Class::Boolean), Step::IsTruth(true), false),
            Expr::IsNotTrue(inner) => self.test(inner, Some(Class::Boolean), Step::IsTruth(true), true),
            Expr::IsFalse(inner) => self.test(inner, Some(Class::Boolean), Step::IsTruth(false), false),
            Expr::IsNotFalse(inner) => self.test(inner, Some(Class::Boolean), Step::IsTruth(false), true),
            Expr::IsDistinctFrom(left, right) => self.compare(left, right, Step::IsDistinct),
            Expr::IsNotDistinctFrom(left, right) => {
                self.compare(left, right, Step::IsDistinct)?;
                self.push(Step::Not, Class::Boolean)
            }
            Expr::Between { expr, negated, low, high } => {
                self.compare(expr, low, Step::Compare(Comparison::GreaterOrEqual))?;
                self.compare(expr, high, Step::Compare(Comparison::LessOrEqual))?;
                self.push(Step::And, Class::Boolean)?;
                self.negated(*negated)
            }
            Expr::InList { expr, list, negated } => {
                for (at, item) in list.iter().enumerate() {
                    self.compare(expr, item, Step::Compare(Comparison::Equal))?;
                    if at > 0 {
                        self.push(Step::Or, Class::Boolean)?;
                    }
                }
                self.negated(*negated)
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.of_class(expr, Class::Text)?;
                self.of_class(pattern, Class::Text)?;
                self.push(Step::Like, Class::Boolean)?;
                self.negated(*negated)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: inner,
                data_type,
                format: None,
                array: false,
            } => {
                let ty = column_type(data_type)?;
                self.expr(inner, Some(ty))?;
                self.push(Step::Cast(ty), class_of(ty))
            }
            Expr::Trim { expr, trim_where: None, trim_what: None, trim_characters: None } => {
                self.of_class(expr, Class::Text)?;
                self.push(Step::Trim, Class::Text)
            }
            Expr::Function(function) => self.function(expr, function),
            other => Err(unsupported(other)),
        }
    }

    fn literal(&mut self, value: Value, like: Option<ColumnType>) -> Result<Class> {
        let text_like = |ty: ColumnType| class_of(ty) != Class::Number;
        let value = match (value, like) {
            (value @ Value::Text(_), Some(ty)) if text_like(ty) => value.clone().coerce(ty).or_else(|error| {
                // A text that is too long for its column is merely equal to no value of it.
                if class_of(ty) == Class::Text { Ok(value) } else { Err(error) }
            })?,
            (value, _) => value,
        };
        let class = class_of_value(&value);
        self.push(Step::Constant(value), class)
    }

    fn column(&mut self, name: &str) -> Result<Class> {
        let Some((_, position, ty)) = self.scope.columns.iter().find(|(column, ..)| column == name) else {
            let message = match self.scope.is_default {
                true => format!("a default can not read column \"{name}\""),
                false => format!("table \"{}\" has no column \"{name}\"", self.scope.table),
            };
            let code = if self.scope.is_default { Code::Unsupported } else { Code::NoSuchColumn };
            return Err(Error::new(code, message));
        };
        self.push(Step::Column(*position), class_of(*ty))
    }

    /// The type of a plain column, which literals beside it take.
    fn type_of(&self, expr: &Expr) -> Option<ColumnType> {
        let name = match expr {
            Expr::Nested(inner) => return self.type_of(inner),
            Expr::Identifier(ident) => fold(ident).text,
            Expr::CompoundIdentifier(parts) => fold(parts.last()?).text,
            Expr::Cast { data_type, .. } => return column_type(data_type).ok(),
            _ => return None,
        };
        self.scope.columns.iter().find(|(column, ..)| *column == name).map(|(_, _, ty)| *ty)
    }

    fn of_class(&mut self, expr: &Expr, wanted: Class) -> Result<()> {
        let found = self.expr(expr, None)?;
        if found == wanted || found == Class::Null {
            return Ok(());
        }
        let message = format!("{expr} is {}, not {}", name_of(found), name_of(wanted));
        Err(Error::new(Code::WrongType, message))
    }

    fn test(&mut self, inner: &Expr, class: Option<Class>, step: Step, negated: bool) -> Result<Class> {
        match class {
            Some(class) => self.of_class(inner, class)?,
            None => {
                self.expr(inner, None)?;
            }
        }
        self.push(step, Class::Boolean)?;
        self.negated(negated)
    }

    fn negated(&mut self, negated: bool) -> Result<Class> {
        if negated { self.push(Step::Not, Class::Boolean) } else { Ok(Class::Boolean) }
    }

    fn unary(&mut self, op: &UnaryOperator, operand: &Expr) -> Result<Class> {
        match op {
            UnaryOperator::Not => {
                self.of_class(operand, Class::Boolean)?;
                self.push(Step::Not, Class::Boolean)
            }
            UnaryOperator::Minus => {
                self.of_class(operand, Class::Number)?;
                self.push(Step::Negate, Class::Number)
            }
            UnaryOperator::Plus => {
                self.of_class(operand, Class::Number)?;
                Ok(Class::Number)
            }
            other => Err(Error::new(Code::Unsupported, format!("the operator {other} is not supported here"))),
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Class> {
        use BinaryOperator as B;
        let comparison = match op {
            B::Eq => Comparison::Equal,
            B::NotEq => Comparison::NotEqual,
            B::Lt => Comparison::Less,
            B::LtEq => Comparison::LessOrEqual,
            B::Gt => Comparison::Greater,
            B::GtEq => Comparison::GreaterOrEqual,
            B::And | B::Or => {
                self.of_class(left, Class::Boolean)?;
                self.of_class(right, Class::Boolean)?;
                return self.push(if *op == B::And { Step::And } else { Step::Or }, Class::Boolean);
            }
            B::StringConcat => {
                self.of_class(left, Class::Text)?;
                self.of_class(right, Class::Text)?;
                return self.push(Step::Concatenate, Class::Text);
            }
            other => return self.arithmetic(left, other, right),
        };
        self.compare(left, right, Step::Compare(comparison))
    }

    fn arithmetic(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Class> {
        let step = match op {
            BinaryOperator::Plus => Step::Add,
            BinaryOperator::Minus => Step::Subtract,
            BinaryOperator::Multiply => Step::Multiply,
            BinaryOperator::Divide => Step::Divide,
            BinaryOperator::Modulo => Step::Remainder,
            other => return Err(Error::new(Code::Unsupported, format!("the operator {other} is not supported here"))),
        };
        if step == Step::Divide && [left, right].iter().any(|side| self.is_decimal(side)) {
            let error =
                Error::new(Code::Unsupported, format!("{left} / {right}: division of decimals in a definition"));
            return Err(error.with_hint("multiply instead, or CAST to DOUBLE PRECISION"));
        }
        let classes = (self.expr(left, None)?, self.expr(right, None)?);
        match classes {
            (Class::Date, Class::Number) if matches!(step, Step::Add | Step::Subtract) => self.push(step, Class::Date),
            (Class::Date, Class::Date) if step == Step::Subtract => self.push(step, Class::Number),
            (Class::Number | Class::Null, Class::Number | Class::Null) => self.push(step, Class::Number),
            (left_class, right_class) => {
                let (a, b) = (name_of(left_class), name_of(right_class));
                let message = format!("{left} {op} {right}: {a} and {b} do not go together");
                Err(Error::new(Code::WrongType, message))
            }
        }
    }

    fn is_decimal(&self, expr: &Expr) -> bool {
        matches!(self.type_of(expr), Some(ColumnType::Decimal { .. }))
            || matches!(literal::constant(expr), Some(Ok(Value::Decimal(_))))
    }

    fn compare(&mut self, left: &Expr, right: &Expr, step: Step) -> Result<Class> {
        let (of_left, of_right) = (self.type_of(left), self.type_of(right));
        let classes = (self.expr(left, of_right)?, self.expr(right, of_left)?);
        let fits = match classes {
            (Class::Null, _) | (_, Class::Null) => true,
            (Class::Date, Class::Timestamp) | (Class::Timestamp, Class::Date) => true,
            (left, right) => left == right,
        };
        if !fits {
            let (a, b) = (name_of(classes.0), name_of(classes.1));
            let message = format!("{left} and {right} can not be compared: {a} and {b}");
            return Err(Error::new(Code::WrongType, message));
        }
        self.push(step, Class::Boolean)
    }

    fn function(&mut self, expr: &Expr, function: &sqlparser::ast::Function) -> Result<Class> {
        let is_plain = function.filter.is_none() && function.over.is_none() && function.within_group.is_empty();
        let args: Option<Vec<&Expr>> = match &function.args {
            FunctionArguments::None => Some(Vec::new()),
            FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => {
                list.args.iter().map(plain_argument).collect()
            }
            _ => None,
        };
        let (true, Some(args)) = (is_plain, args) else { return Err(unsupported(expr)) };
        let name = function.name.to_string().to_lowercase();
        let one = |compiler: &mut Self, class: Class, step: Step, answer: Class| {
            compiler.of_class(args[0], class)?;
            compiler.push(step, answer)
        };
        match (name.as_str(), args.len()) {
            ("length" | "char_length" | "character_length", 1) => {
                one(self, Class::Text, Step::Characters, Class::Number)
            }
            ("octet_length", 1) => {
                self.expr(args[0], None)?;
                self.push(Step::Octets, Class::Number)
            }
            ("lower", 1) => one(self, Class::Text, Step::Lower, Class::Text),
            ("upper", 1) => one(self, Class::Text, Step::Upper, Class::Text),
            ("trim" | "btrim", 1) => one(self, Class::Text, Step::Trim, Class::Text),
            ("abs", 1) => one(self, Class::Number, Step::Absolute, Class::Number),
            ("coalesce", 1..) => self.coalesce(&args),
            ("now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp", 0) => {
                self.changing(Step::Now, Class::Timestamp)
            }
            ("localtimestamp", 0) => self.now_as(ColumnType::Timestamp, Class::Timestamp),
            ("current_date", 0) => self.now_as(ColumnType::Date, Class::Date),
            ("gen_random_uuid" | "uuid", 0) => self.changing(Step::NewUuid, Class::Uuid),
            _ => Err(unsupported(expr)),
        }
    }

    fn coalesce(&mut self, args: &[&Expr]) -> Result<Class> {
        let mut class = Class::Null;
        for (at, arg) in args.iter().enumerate() {
            let found = self.expr(arg, args.iter().find_map(|arg| self.type_of(arg)))?;
            if class != Class::Null && found != Class::Null && found != class {
                let (a, b) = (name_of(class), name_of(found));
                return Err(Error::new(Code::WrongType, format!("coalesce: {a} and {b} do not go together")));
            }
            class = if class == Class::Null { found } else { class };
            if at > 0 {
                self.push(Step::Coalesce, class)?;
            }
        }
        Ok(class)
    }

    fn now_as(&mut self, ty: ColumnType, class: Class) -> Result<Class> {
        self.changing(Step::Now, class)?;
        self.push(Step::Cast(ty), class)
    }

    /// What is another value each time.
    fn changing(&mut self, step: Step, class: Class) -> Result<Class> {
        if self.scope.is_default {
            return self.push(step, class);
        }
        let message = "a condition on rows must not depend on time or chance: it would hold today and fail tomorrow";
        Err(Error::new(Code::InvalidStatement, message))
    }
}

fn plain_argument(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn name_of(class: Class) -> &'static str {
    match class {
        Class::Null => "null",
        Class::Boolean => "boolean",
        Class::Number => "a number",
        Class::Text => "text",
        Class::Bytes => "varbinary",
        Class::Uuid => "uuid",
        Class::Date => "a date",
        Class::Time => "a time",
        Class::Timestamp => "a timestamp",
    }
}

fn unsupported(expr: &Expr) -> Error {
    let error = Error::new(Code::Unsupported, format!("\"{expr}\" is not supported in a table's definition"));
    error.with_hint(
        "there are columns, literals, comparisons, AND, OR, NOT, IS NULL, IN, BETWEEN, LIKE, arithmetic, ||, CAST, length, \
         lower, upper, trim, abs and coalesce; in defaults also current_timestamp, current_date and gen_random_uuid()",
    )
}
