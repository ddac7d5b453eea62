"""A short run of faults under load; `make chaos MINUTES=30` is a long one."""

import os

import network
import pytest
from chaos import FLOOR, run, until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "45"))


def check(report, seconds):
    print(report)
    assert report.acknowledged > FLOOR * seconds, "too little was done under these faults"
    assert report.lost == [] and report.invented == []
    assert report.wrong_sums == []
    assert report.broken_registers == []


def test_nothing_acknowledged_is_lost_when_instances_die_and_stop(tmp_path):
    check(run(tmp_path, until(SECONDS), seed=1, with_network=False), SECONDS)


def test_nothing_acknowledged_is_lost_when_the_network_parts(tmp_path):
    reason = network.why_not()
    if reason:
        pytest.skip(reason)
    check(run(tmp_path, until(SECONDS), seed=2, with_network=True), SECONDS)
