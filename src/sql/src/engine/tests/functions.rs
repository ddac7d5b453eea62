//! Every function on any number of arguments of any kind: an answer or an error that names what is wrong, never a panic.

use super::Fixture;
use crate::engine::session::Session;
use model::Code;
use std::collections::BTreeSet;

const ROW: &str =
    "(VALUES (1, 'x', '[1]', DATE '2020-02-03', 1.5, TRUE, CAST(NULL AS TEXT), INTERVAL '1' DAY, ARRAY[1, 2]),
    (-9223372036854775808, '', '', DATE '2020-02-04', -0.5, FALSE, NULL, INTERVAL '2' DAY, ARRAY[3]),
    (9223372036854775807, 'a', '{}', DATE '2020-02-05', 9, NULL, NULL, INTERVAL '3' DAY, NULL))
    v(i, t, j, d, n, b, z, y, a)";
const KINDS: [&str; 9] = ["i", "t", "j", "d", "n", "b", "z", "y", "a"];
const ARGS_MAX: usize = 4;

/// No argument; the same one several times; and each kind followed by others.
fn lists() -> BTreeSet<String> {
    let mut lists = BTreeSet::from([String::new()]);
    for count in 1..=ARGS_MAX {
        for first in 0..KINDS.len() {
            for step in 0..3 {
                let args: Vec<&str> = (0..count).map(|at| KINDS[(first + at * step) % KINDS.len()]).collect();
                lists.insert(args.join(", "));
            }
        }
    }
    lists
}

#[test]
fn no_function_panics_on_what_it_does_not_take() {
    let session = Session::new();
    let [scalars, aggregates, windows] = session.function_names();
    let calls = scalars.iter().chain(&aggregates).map(|name| (name, ""));
    let calls = calls.chain(aggregates.iter().chain(&windows).map(|name| (name, " OVER (ORDER BY i)")));
    let (fixture, lists) = (Fixture::new(1), lists());
    let mut internal = Vec::new();
    for (name, over) in calls {
        for args in &lists {
            let call = format!("\"{name}\"({args}){over}");
            if let Err(error) = fixture.run(&format!("SELECT {call} FROM {ROW}"))
                && error.code == Code::Internal
            {
                internal.push(format!("{call}: {error}"));
            }
        }
    }
    assert!(internal.is_empty(), "{} calls:\n{}", internal.len(), internal.join("\n"));
}
