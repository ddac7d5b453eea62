//! Queries made up at random: the answer does not depend on how many replicasets there are, or on there being any.

use super::{Fixture, input, shown};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A table with its alias, and the columns that can be joined, grouped and compared: all integers.
fn table() -> impl Strategy<Value = (&'static str, Vec<&'static str>)> {
    prop_oneof![
        Just(("item", vec!["id", "kind"])),
        Just(("line", vec!["order_id", "no", "item_id", "quantity"])),
        Just(("shipment", vec!["order_id"])),
        Just(("tag", vec!["kind"])),
        Just(("kind", vec!["id"])),
        Just(("nothing", vec!["id", "x"])),
    ]
}

fn predicate(column: String) -> impl Strategy<Value = String> {
    (0..9u8, -2i64..30, 0i64..12).prop_map(move |(form, n, m)| match form {
        0 => format!("{column} = {n}"),
        1 => format!("{column} > {n}"),
        2 => format!("{column} BETWEEN {n} AND {}", n + m),
        3 => format!("{column} IN ({n}, {m}, {})", n + m),
        4 => format!("{column} IS NULL"),
        5 => format!("NOT ({column} < {n})"),
        6 => format!("{column} % 3 = {}", m % 3),
        7 => format!("({column} = {n} OR {column} = {m} OR {column} IS NULL)"),
        _ => format!("coalesce({column}, {m}) <> {n}"),
    })
}

fn subquery(column: String) -> impl Strategy<Value = String> {
    (table(), any::<prop::sample::Index>(), 0..4u8, -2i64..30).prop_map(move |((name, columns), at, form, n)| {
        let inner = at.get(&columns);
        match form {
            0 => format!("{column} IN (SELECT {inner} FROM {name} WHERE {inner} > {n})"),
            1 => format!("{column} NOT IN (SELECT {inner} FROM {name} WHERE {inner} < {n})"),
            2 => format!("EXISTS (SELECT 1 FROM {name} s WHERE s.{inner} = {column})"),
            _ => format!("NOT EXISTS (SELECT 1 FROM {name} s WHERE s.{inner} = {column})"),
        }
    })
}

/// Two joined tables with filters; then plain, grouped, distinct, or the top few in a fixed order.
fn query() -> impl Strategy<Value = String> {
    let sides = (table(), table(), any::<[prop::sample::Index; 5]>(), 0..6u8, any::<bool>(), 0..7u8);
    sides
        .prop_flat_map(|((left, l), (right, r), at, join, nested, shape)| {
            let a = |i: usize| format!("a.{}", at[i].get(&l));
            let b = |i: usize| format!("b.{}", at[i].get(&r));
            let on = format!("{} = {}", a(0), b(0));
            let from = match join {
                0 => format!("{left} a JOIN {right} b ON {on}"),
                1 => format!("{left} a LEFT JOIN {right} b ON {on}"),
                2 => format!("{left} a RIGHT JOIN {right} b ON {on}"),
                3 => format!("{left} a FULL JOIN {right} b ON {on}"),
                4 => format!("{left} a LEFT JOIN {right} b ON {on} AND {} > 3", b(1)),
                _ => format!(
                    "{left} a JOIN (SELECT {0}, count(*) AS n FROM {right} GROUP BY {0}) b ON {1} = b.{0}",
                    at[0].get(&r),
                    a(0)
                ),
            };
            let (x, y) = (a(2), if join == 5 { "b.n".to_owned() } else { b(3) });
            let filter = if nested { subquery(a(4)).boxed() } else { predicate(a(4)).boxed() };
            (Just((from, x, y, shape)), filter, predicate(y_column(join, &at, &r)))
        })
        .prop_map(|((from, x, y, shape), first, second)| {
            let from = format!("FROM {from} WHERE {first} AND ({second} OR {x} > 1)");
            match shape {
                0 => format!("SELECT {x}, {y} {from}"),
                1 => format!("SELECT {x}, count(*), sum({y}), count(DISTINCT {y}) {from} GROUP BY {x}"),
                2 => format!("SELECT {y}, min({x}), max({x}), avg({x}) {from} GROUP BY {y}"),
                3 => format!("SELECT DISTINCT {x}, {y} {from}"),
                // The columns that fix the order are not all shown.
                4 => format!("SELECT {y} AS v {from} ORDER BY {x} NULLS FIRST, v DESC LIMIT 7 OFFSET 2"),
                5 => format!("SELECT count(*), sum({x}), max({y}) {from}"),
                _ => format!("SELECT {x} AS u {from} UNION ALL SELECT id FROM kind"),
            }
        })
}

fn y_column(join: u8, at: &[prop::sample::Index; 5], columns: &[&'static str]) -> String {
    if join == 5 { "b.n".to_owned() } else { format!("b.{}", at[3].get(columns)) }
}

#[test]
fn random_queries_have_one_answer() {
    let oracle = Fixture::oracle();
    let clusters: Vec<Fixture> = (1..=3).map(Fixture::filled).collect();
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let answer = |fixture: &Fixture, sql: &str| {
        let mut rows = shown(&fixture.run_at(0, input(sql)).map_err(|error| format!("{:?} {error}", error.code))?);
        rows.sort();
        Ok::<_, String>(rows)
    };
    TestRunner::new(config)
        .run(&query(), |sql| {
            let expected = answer(&oracle, &sql);
            prop_assert!(expected.is_ok(), "{sql}: {expected:?}");
            for (at, cluster) in clusters.iter().enumerate() {
                let got = answer(cluster, &sql);
                prop_assert_eq!(
                    &got,
                    &expected,
                    "{} on {} replicasets\n{}",
                    sql,
                    at + 1,
                    cluster.explain(&sql).join("\n")
                );
            }
            Ok(())
        })
        .unwrap();
}
