//! The files of test/sql, statement by statement, on clusters in memory of one, two and three replicasets, with the
//! point path and without it. The cluster tests run the same files on real instances.

use sql::engine::runtime;
use sql::testing::{Session, slt};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/sql");
    let entries = std::fs::read_dir(&folder).expect("the folder test/sql");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

/// All files on one kind of cluster; every difference is reported.
fn check(replicasets: usize, point_path: bool) {
    let runtime = runtime(2).expect("threads");
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let run = async move {
            let session = Session::new(replicasets, point_path);
            let mut wrong = Vec::new();
            for (number, record) in slt::records(&text).iter().enumerate() {
                let answer = session.run(number, &record.sql).await;
                if let Some(difference) = slt::difference(record, &answer) {
                    wrong.push(format!("{name}:{}\n{}\n{difference}", record.line, record.sql));
                }
            }
            assert_eq!(session.cluster.scans_open(), 0, "{name}: scans were left open");
            wrong
        };
        // On a worker thread: planning needs a deeper stack than a test has.
        wrong.extend(runtime.block_on(runtime.spawn(run)).expect("no panic"));
    }
    assert!(wrong.is_empty(), "{} records differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn one_replicaset() {
    check(1, true);
}

#[test]
fn two_replicasets() {
    check(2, true);
}

#[test]
fn three_replicasets() {
    check(3, true);
}

#[test]
fn one_replicaset_without_the_point_path() {
    check(1, false);
}

#[test]
fn three_replicasets_without_the_point_path() {
    check(3, false);
}
