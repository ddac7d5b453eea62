//! ROLLUP and CUBE of lists, and those within GROUPING SETS, as the sets that they stand for.

use model::{Code, Error, Result};
use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

/// Sets of one GROUP BY.
const SETS_MAX: usize = 4_096;
/// Expressions in all sets together.
const ITEMS_MAX: usize = 50_000;

type Sets = Vec<Vec<Expr>>;

/// Whether the planner can not read it.
pub fn is_composed(expr: &Expr) -> bool {
    match expr {
        Expr::Rollup(lists) | Expr::Cube(lists) => {
            lists.iter().any(|list| list.len() > 1 || matches!(&list[..], [Expr::Tuple(_)]))
        }
        Expr::GroupingSets(sets) => sets.iter().any(|set| matches!(&set[..], [only] if within(only).is_some())),
        _ => false,
    }
}

/// Errors: `LimitExceeded`.
pub fn as_sets(expr: &mut Expr) -> Result<()> {
    let mut left = Left { sets: SETS_MAX, items: ITEMS_MAX };
    let sets = match expr {
        Expr::Rollup(lists) => rollup(&lists.drain(..).map(flat).collect::<Vec<_>>(), &mut left)?,
        Expr::Cube(lists) => cube(&lists.drain(..).map(flat).collect::<Vec<_>>(), &mut left)?,
        Expr::GroupingSets(sets) => {
            let mut all = Sets::new();
            for set in sets.drain(..) {
                match &set[..] {
                    [only] => match within(only) {
                        Some((Kind::Rollup, lists)) => all.extend(rollup(&lists, &mut left)?),
                        Some((Kind::Cube, lists)) => all.extend(cube(&lists, &mut left)?),
                        None => all.push(left.kept(set)?),
                    },
                    _ => all.push(left.kept(set)?),
                }
            }
            all
        }
        _ => return Ok(()),
    };
    *expr = Expr::GroupingSets(sets);
    Ok(())
}

/// What may still be made.
struct Left {
    sets: usize,
    items: usize,
}

impl Left {
    fn take(&mut self, sets: usize, items: usize) -> Result<()> {
        match (self.sets.checked_sub(sets), self.items.checked_sub(items)) {
            (Some(sets), Some(items)) => {
                *self = Left { sets, items };
                Ok(())
            }
            _ => {
                let message =
                    format!("GROUP BY has more than {SETS_MAX} grouping sets, or {ITEMS_MAX} expressions in them");
                Err(Error::new(Code::LimitExceeded, message))
            }
        }
    }

    fn kept(&mut self, set: Vec<Expr>) -> Result<Vec<Expr>> {
        self.take(1, set.len())?;
        Ok(set)
    }
}

enum Kind {
    Rollup,
    Cube,
}

/// A ROLLUP or CUBE among sets, which the parser takes for a function.
fn within(expr: &Expr) -> Option<(Kind, Sets)> {
    let Expr::Function(function) = expr else { return None };
    let kind = match function.name.to_string().to_lowercase().as_str() {
        "rollup" => Kind::Rollup,
        "cube" => Kind::Cube,
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    let arg = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(flat(vec![expr.clone()])),
        _ => None,
    };
    Some((kind, list.args.iter().map(arg).collect::<Option<_>>()?))
}

fn flat(list: Vec<Expr>) -> Vec<Expr> {
    match <[Expr; 1]>::try_from(list) {
        Ok([Expr::Tuple(items)]) => items,
        Ok([Expr::Nested(only)]) => vec![*only],
        Ok([only]) => vec![only],
        Err(list) => list,
    }
}

/// The lists together, then without the last one, and so on.
fn rollup(lists: &[Vec<Expr>], left: &mut Left) -> Result<Sets> {
    let items = lists.iter().rev().enumerate().map(|(times, list)| (times + 1).saturating_mul(list.len()));
    left.take(lists.len() + 1, items.fold(0, usize::saturating_add))?;
    Ok((0..=lists.len()).rev().map(|count| lists[..count].concat()).collect())
}

/// All choices of lists.
fn cube(lists: &[Vec<Expr>], left: &mut Left) -> Result<Sets> {
    let choices = u32::try_from(lists.len()).ok().and_then(|count| 1_usize.checked_shl(count)).unwrap_or(usize::MAX);
    let items: usize = lists.iter().map(Vec::len).sum();
    left.take(choices, (choices / 2).saturating_mul(items))?;
    let chosen = |choice: usize| {
        let is_chosen = |at: &usize| choice >> (lists.len() - 1 - at) & 1 == 1;
        (0..lists.len()).filter(is_chosen).flat_map(|at| lists[at].clone()).collect()
    };
    Ok((0..1 << lists.len()).rev().map(chosen).collect())
}
