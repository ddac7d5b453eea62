"""Random queries of a fixed seed have PostgreSQL's answers on clusters of three and of one replicaset.

`make differential` asks many more, of other seeds.
"""

import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "test" / "differential"))
import engines  # noqa: E402
import run  # noqa: E402

SEED = 20160
SCHEMAS = 3
QUERIES_PER_SCHEMA = 120


@pytest.fixture
def sides(tmp_path):
    made = []
    try:
        made += [engines.Cluster(tmp_path / str(size), size) for size in (3, 1)]
        made.append(engines.Postgres())
        yield made
    finally:
        for side in made:
            side.stop()


def test_random_queries_have_the_answers_of_postgresql(sides, capsys):
    *clusters, reference = sides
    tester = run.Tester(SEED, clusters, reference)
    for number in range(SCHEMAS):
        tester.schema(f"{SEED}/{number}", QUERIES_PER_SCHEMA)
    assert not tester.differences, capsys.readouterr().out
    assert tester.refused * 20 < tester.asked, "most of the queries were refused, so little was compared"
