//! RIGHT and FULL joins with USING, whose common columns the engine takes from the left side alone.
//!
//! A RIGHT join is the LEFT join of its sides exchanged. Of a FULL join of two tables the common columns are
//! COALESCEd where they are named alone.

use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, ObjectNamePart, Select, SelectItem, TableFactor,
    TableWithJoins, VisitMut,
};

/// Errors: `Unsupported` for `*` over such joins and for NATURAL ones, where `wildcards` has left them because a side is no
/// table, and for FULL joins of more than two tables.
pub fn respell(select: &mut Select) -> Result<()> {
    let shows_all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let mut coalesced = Vec::new();
    for from in &mut select.from {
        let mut at = 0;
        while at < from.joins.len() {
            let (is_right, is_full, constraint) = match &from.joins[at].join_operator {
                JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (true, false, c),
                JoinOperator::FullOuter(c) => (false, true, c),
                _ => (false, false, &JoinConstraint::None),
            };
            let names = match constraint {
                JoinConstraint::Using(names) => names.clone(),
                JoinConstraint::Natural if is_right || is_full => {
                    return unsupported("a NATURAL RIGHT or FULL join of derived tables");
                }
                _ => Vec::new(),
            };
            if !names.is_empty() && shows_all {
                return unsupported("SELECT * over a RIGHT or FULL join of derived tables with USING");
            }
            if is_right && !names.is_empty() {
                exchange(from, at);
                at = 0;
            } else if is_full && !names.is_empty() {
                coalesced.extend(full(from, at, &names)?);
            }
            at += 1;
        }
    }
    if !coalesced.is_empty() {
        coalesce(select, coalesced)?;
    }
    Ok(())
}

/// Errors: `InvalidStatement` for a join that says nothing of how, which the parser takes for a CROSS JOIN.
pub fn check(from: &TableWithJoins) -> Result<()> {
    use JoinConstraint::None as Nothing;
    use JoinOperator as J;
    let is_open = |operator: &JoinOperator| {
        matches!(operator, J::Join(Nothing) | J::Inner(Nothing) | J::Left(Nothing) | J::LeftOuter(Nothing))
            || matches!(operator, J::Right(Nothing) | J::RightOuter(Nothing) | J::FullOuter(Nothing))
    };
    match from.joins.iter().find(|join| is_open(&join.join_operator)) {
        Some(join) => Err(Error::new(Code::InvalidStatement, format!("the join with {} has no ON", join.relation))
            .with_hint("write ON or USING, or CROSS JOIN")),
        None => Ok(()),
    }
}

pub fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::new(Code::Unsupported, format!("{what} is not supported")).with_hint("write ON, and name the columns"))
}

/// `a JOIN b RIGHT JOIN c USING (x) JOIN d` becomes `c LEFT JOIN (a JOIN b) USING (x) JOIN d`.
fn exchange(from: &mut TableWithJoins, at: usize) {
    let rest = from.joins.split_off(at + 1);
    let Some(mut join) = from.joins.pop() else { return };
    let left = TableWithJoins { relation: from.relation.clone(), joins: std::mem::take(&mut from.joins) };
    let right = std::mem::replace(
        &mut join.relation,
        match left.joins.is_empty() {
            true => left.relation,
            false => TableFactor::NestedJoin { table_with_joins: Box::new(left), alias: None },
        },
    );
    if let JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) = join.join_operator {
        join.join_operator = JoinOperator::Left(constraint);
    }
    from.relation = right;
    from.joins = vec![join];
    from.joins.extend(rest);
}

/// The columns of USING with what they stand for; the join gets ON.
fn full(from: &mut TableWithJoins, at: usize, names: &[ast::ObjectName]) -> Result<Vec<(String, Expr)>> {
    let sides = (qualifier(&from.relation), qualifier(&from.joins[at].relation));
    let (Some(left), Some(right), 0, 1) = (sides.0, sides.1, at, from.joins.len()) else {
        return unsupported("a FULL join with USING beside other joins");
    };
    let mut columns = Vec::with_capacity(names.len());
    let mut condition: Option<Expr> = None;
    for name in names {
        let Some(ObjectNamePart::Identifier(name)) = name.0.last() else { continue };
        let [l, r] = [&left, &right].map(|side| Expr::CompoundIdentifier(vec![side.clone(), name.clone()]));
        let equal = Expr::BinaryOp { left: Box::new(l.clone()), op: BinaryOperator::Eq, right: Box::new(r.clone()) };
        condition = Some(match condition {
            None => equal,
            Some(before) => Expr::BinaryOp { left: Box::new(before), op: BinaryOperator::And, right: Box::new(equal) },
        });
        columns.push((fold(name).text, super::call("coalesce", vec![l, r])));
    }
    if let Some(condition) = condition {
        from.joins[at].join_operator = JoinOperator::FullOuter(JoinConstraint::On(condition));
    }
    Ok(columns)
}

fn qualifier(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, alias: None, .. } => match name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

struct Writer {
    columns: Vec<(String, Expr)>,
    /// Queries inside one another: names in a subquery may be its own.
    depth: usize,
}

impl walk::Change for Writer {
    fn enter_query(&mut self, _: &mut ast::Query) -> Result<()> {
        self.depth += 1;
        Ok(())
    }

    fn leave_query(&mut self, _: &mut ast::Query) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn leave_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let (Expr::Identifier(name), 0) = (&*expr, self.depth) {
            let name = fold(name).text;
            if let Some((_, whole)) = self.columns.iter().find(|(known, _)| *known == name) {
                *expr = whole.clone();
            }
        }
        Ok(())
    }
}

/// Puts what columns stand for in the places where they are named alone.
pub fn write_whole(part: &mut impl VisitMut, columns: Vec<(String, Expr)>) -> Result<()> {
    walk::change(part, &mut Writer { columns, depth: 0 })
}

/// The same in a whole SELECT; a result column keeps its name.
pub fn coalesce(select: &mut Select, columns: Vec<(String, Expr)>) -> Result<()> {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && columns.iter().any(|(known, _)| *known == fold(name).text)
        {
            *item = SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias: name.clone() };
        }
    }
    write_whole(&mut select.projection, columns.clone())?;
    write_whole(&mut select.selection, columns.clone())?;
    write_whole(&mut select.group_by, columns.clone())?;
    write_whole(&mut select.having, columns)
}
