"""Writes docs/conformance.md from test/sql/*.slt: one line for each section that begins with `# ID title`.

python -m conformance           writes the page
python -m conformance --check   says whether it is up to date
"""

import re
import sys

import slt
from harness import ROOT

PAGE = ROOT / "docs" / "conformance.md"
SECTION = re.compile(r"# ((?:[A-Z]{1,2}\d{3}(?:-\d\d)?)|PG-\w+) (.+)")
HEAD = """# Conformance

What of SQL:2016 and of PostgreSQL's dialect there is, by the standard's feature ids (those that begin with PG are not
of the standard). Made by `make conformance` from the statements in `test/sql`, each of which runs on clusters of one,
two and three replicasets, with the point path and without it, on real processes, and on PostgreSQL where its dialect
has the statement too. *Statements* counts them, *alike* those that PostgreSQL answers the same.

| id | feature | state | statements | alike |
|---|---|---|---|---|
"""


def sections():
    """(id, title, records of ours, how many PostgreSQL runs too, statements that are only PostgreSQL's)"""
    for path in sorted((ROOT / "test" / "sql").glob("*.slt")):
        lines = path.read_text().split("\n")
        starts = [(at, SECTION.fullmatch(line)) for at, line in enumerate(lines, 1)]
        starts = [(at, match) for at, match in starts if match]
        if not starts:
            continue
        ours, theirs = slt.parse(path), slt.parse(path, "postgresql")
        for (at, match), end in zip(starts, [s for s, _ in starts[1:]] + [len(lines) + 1], strict=True):
            within = [r for r in ours if at < r.line < end]
            shared = {r.line for r in theirs if at < r.line < end}
            missing = [r for r in theirs if at < r.line < end and r.line not in {o.line for o in within}]
            yield match[1], match[2], within, shared, [r for r in missing if r.kind != "error"]


def is_refusal(record, shared):
    """A statement that PostgreSQL has and we refuse by name."""
    return record.kind == "error" and record.line not in shared and record.expected[0].isupper()


def page():
    text, refused = HEAD, []
    for name, title, ours, shared, missing in sections():
        gaps = [r for r in ours if is_refusal(r, shared)]
        refused += [(name, r.sql) for r in gaps + missing]
        state = "yes" if not gaps and not missing else "partly"
        count = len(ours) - len(gaps)
        alike = sum(r.line in shared for r in ours)
        text += f"| {name} | {title} | {state} | {count} | {alike} |\n"
    text += "\n## What is refused\n\nEach with an error that says so:\n\n"
    return text + "".join(f"- {name}: `{' '.join(sql.split())}`\n" for name, sql in refused)


def main(words):
    if words == ["--check"]:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
