//! Integer `+`, `-` and `*` that fail when the result does not fit, where the query engine's own would wrap around.
//!
//! The planner asks here first for each operator; what is no arithmetic of signed integers goes on as before. The
//! functions travel by name and keep the operator's spelling in column names.

use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use sqlparser::ast::BinaryOperator;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

impl Operation {
    const ALL: [Operation; 3] = [Operation::Add, Operation::Subtract, Operation::Multiply];

    fn of(op: &BinaryOperator) -> Option<Self> {
        match op {
            BinaryOperator::Plus => Some(Operation::Add),
            BinaryOperator::Minus => Some(Operation::Subtract),
            BinaryOperator::Multiply => Some(Operation::Multiply),
            _ => None,
        }
    }

    fn sign(self) -> char {
        match self {
            Operation::Add => '+',
            Operation::Subtract => '-',
            Operation::Multiply => '*',
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::Add => "integer_add",
            Operation::Subtract => "integer_subtract",
            Operation::Multiply => "integer_multiply",
        }
    }
}

/// One of the three, as a function of the engine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn new(operation: Operation) -> Self {
        Self { operation, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// All functions, for the session to know.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    Operation::ALL.map(|operation| Arc::new(ScalarUDF::from(Checked::new(operation)))).into()
}

fn width(ty: &DataType) -> Option<u8> {
    match ty {
        DataType::Null => Some(0),
        DataType::Int8 => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(4),
        DataType::Int64 => Some(8),
        _ => None,
    }
}

/// The wider of two signed integer types; None for other types, and for two NULLs.
fn wider(left: &DataType, right: &DataType) -> Option<DataType> {
    let wider = if width(left)? >= width(right)? { left } else { right };
    (*wider != DataType::Null).then(|| wider.clone())
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        let names = args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>();
        Ok(names.join(&format!(" {} ", self.operation.sign())))
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [left, right] => {
                let wider = wider(left, right).unwrap_or(DataType::Int64);
                Ok(vec![wider.clone(), wider])
            }
            _ => datafusion::common::plan_err!("{} takes two integers", self.name()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return datafusion::common::exec_err!("{} takes two integers", self.name());
        };
        match self.operation {
            Operation::Add => apply(left, right, add),
            Operation::Subtract => apply(left, right, sub),
            Operation::Multiply => apply(left, right, mul),
        }
    }
}

/// Chooses the functions above for operators on signed integers.
#[derive(Debug)]
pub struct CheckedArithmetic {
    functions: [Arc<ScalarUDF>; 3],
}

impl CheckedArithmetic {
    pub fn new() -> Self {
        Self { functions: Operation::ALL.map(|operation| Arc::new(ScalarUDF::from(Checked::new(operation)))) }
    }
}

impl ExprPlanner for CheckedArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let types = (expr.left.get_type(schema), expr.right.get_type(schema));
        let (Some(operation), (Ok(left), Ok(right))) = (Operation::of(&expr.op), types) else {
            return Ok(PlannerResult::Original(expr));
        };
        if wider(&left, &right).is_none() {
            return Ok(PlannerResult::Original(expr));
        }
        let function = &self.functions[operation as usize];
        Ok(PlannerResult::Planned(function.call(vec![expr.left, expr.right])))
    }
}
