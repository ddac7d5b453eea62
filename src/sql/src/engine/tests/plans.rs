//! What runs where, as EXPLAIN shows it: golden scripts in `tests/scripts/plans`, over two replicasets.

use super::{Fixture, input, threads};
use goldenscript::{Command, Context, Runner};
use std::error::Error;

struct Explainer {
    fixture: Fixture,
}

impl Runner for Explainer {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let sql = args.next_pos().ok_or("a query is missing")?.to_owned();
        args.reject_next()?;
        match command.name.as_str() {
            "explain" => Ok(self.fixture.explain(&sql).join("\n")),
            other => Err(format!("no command {other}").into()),
        }
    }
}

#[test]
fn placements_are_as_written_down() {
    for script in ["scans", "aggregates", "joins", "sets"] {
        let path = format!("{}/tests/scripts/plans/{script}", env!("CARGO_MANIFEST_DIR"));
        goldenscript::run(&mut Explainer { fixture: Fixture::filled(2) }, path).unwrap();
    }
}

#[test]
fn analyze_tells_what_each_replicaset_did() {
    let fixture = Fixture::filled(2);
    let (engine, cluster) = (fixture.engine.clone(), fixture.cluster.node(0));
    let analyze =
        async move { engine.explain_analyze(cluster, input("SELECT kind, count(*) FROM item GROUP BY kind")).await };
    let lines = threads().block_on(async { threads().spawn(analyze).await.unwrap() }).unwrap();
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(lines[0].starts_with("Query: rows=8, time="), "{lines:#?}");
    assert!(has("Gather 1, r1 (here): rows=8, time="), "{lines:#?}");
    assert!(has("Gather 1, r2: rows=8, bytes="), "{lines:#?}");
    assert!(has("output_rows=") && has("Scan item"), "{lines:#?}");
}

#[test]
fn a_fragment_goes_only_where_its_buckets_are() {
    let fixture = Fixture::filled(3);
    let fragments_of = |sql: &str| {
        let before = fixture.cluster.fragments();
        fixture.run(sql).unwrap();
        fixture.cluster.fragments() - before
    };
    // From the first replicaset's node, whose own part runs without a call.
    assert_eq!(fragments_of("SELECT count(*) FROM item"), 2);
    assert_eq!(fragments_of("SELECT * FROM kind"), 0);
    assert!((1..=60).all(|id| fragments_of(&format!("SELECT * FROM item WHERE id = {id}")) <= 1));
    assert!((1..=60).any(|id| fragments_of(&format!("SELECT * FROM item WHERE id = {id}")) == 0));
    assert_eq!(fragments_of("SELECT * FROM item WHERE id = 1 AND id = 2"), 0);
}
