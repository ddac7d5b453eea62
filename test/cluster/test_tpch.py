"""The 22 queries of TPC-H, on three replicasets, have PostgreSQL's answers."""

import postgres
import pytest
import tarantool

import tpch

SCALE = 0.1


@pytest.fixture
def server():
    server = postgres.Server()
    try:
        yield server.start()
    finally:
        server.stop()


def test_all_queries_have_the_answers_of_postgresql(workshop, server, tmp_path):
    tpch.generate(tmp_path, SCALE)
    cluster = workshop.cluster(3, memtx_memory=512 << 20).start().wait_balanced()
    connection = server.connect("tpch")
    counts = tpch.load(cluster, tmp_path)
    tpch.load_postgresql(connection, tmp_path)
    for table, count in counts.items():
        assert cluster[0].sql(f"SELECT count(*) FROM {table}") == [[count]]
    wrong = []
    for number, text in tpch.queries(SCALE).items():
        expected = postgres.run(connection, text)
        assert expected, f"query {number} has no answer, so it compares nothing"
        try:
            found = tpch.difference(cluster[number % len(cluster)].sql(text), expected)
        except tarantool.error.DatabaseError as error:
            found = f"refused: {error}"
        if found:
            wrong.append(f"query {number}: {found}")
    assert not wrong, "\n".join(wrong)
