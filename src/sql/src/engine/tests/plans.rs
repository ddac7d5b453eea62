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

fn analyzed(fixture: &Fixture, sql: &'static str) -> Vec<String> {
    let (engine, cluster) = (fixture.engine.clone(), fixture.cluster.node(0));
    let analyze = async move { engine.explain_analyze(cluster, input(sql)).await };
    threads().block_on(async { threads().spawn(analyze).await.unwrap() }).unwrap()
}

#[test]
fn analyze_tells_what_each_replicaset_did() {
    let lines = analyzed(&Fixture::filled(2), "SELECT kind, count(*) FROM item GROUP BY kind");
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(lines[0].starts_with("Query: rows=8, time="), "{lines:#?}");
    assert!(has("Gather 1, r1 (here): rows=8, time="), "{lines:#?}");
    assert!(has("Gather 1, r2: rows=8, bytes="), "{lines:#?}");
    assert!(has("output_rows=") && has("Scan item"), "{lines:#?}");
}

#[test]
fn a_join_looks_up_few_keys_of_few_rows() {
    let fixture = Fixture::filled(2);
    let looked_up = |sql| -> Vec<String> {
        let lines = analyzed(&fixture, sql);
        let lookups = |line: &String| Some(line.split_once("lookups=")?.1.split(',').next()?.to_owned());
        lines.iter().filter_map(lookups).collect()
    };
    let by_key = "SELECT i.name FROM line l JOIN item i ON l.item_id = i.id WHERE l.order_id = 7";
    let found = looked_up(by_key);
    assert!(found.iter().any(|lookups| lookups.starts_with(['1', '2', '3', '4'])), "{:#?}", analyzed(&fixture, by_key));
    assert!(found.iter().all(|lookups| lookups.ends_with("by primary key")), "{found:?}");
    let many_rows_a_key = "SELECT i.id FROM kind k JOIN item i ON i.kind = k.id WHERE k.label = 'kind 3'";
    assert_eq!(looked_up(many_rows_a_key), ["0 by item_kind"; 2]);
    let many_keys = "SELECT a.name FROM item a JOIN item b ON a.id = b.id";
    assert_eq!(looked_up(many_keys), ["0 by primary key"; 2]);
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
