"""One, three or five instances vote in Raft, in as many failure domains as there are; the others learn."""

import pytest
from harness import wait_until


def voters(instance):
    return {i["name"] for i in instance.status()["instances"] if i["voter"]}


def wait_voters(cluster, condition, what):
    """Waits until all running instances name the same voters, and these meet the condition; answers them."""

    def agreed():
        first, *others = [voters(instance) for instance in cluster.running()]
        return first if condition(first) and all(other == first for other in others) else None

    return wait_until(agreed, what)


@pytest.fixture(scope="module")
def grown(shared_workshop):
    """A cluster that has grown from one instance to six, and how many voted at each size."""
    cluster = shared_workshop.cluster(1).start()
    counts = []
    for wanted in (1, 1, 3, 3, 5, 5):
        if counts:
            cluster.add().start()
        cluster.wait_whole()
        counts.append(len(wait_voters(cluster, lambda v, n=wanted: len(v) == n, f"{wanted} voters of {len(cluster)}")))
    return cluster


def test_one_three_or_five_vote(grown):
    leader = grown.leader()
    voting = voters(leader)
    assert len(voting) == 5 and leader.name in voting
    grown[0].sql("CREATE TABLE g (id INT PRIMARY KEY) DISTRIBUTED GLOBALLY")
    learner = next(i for i in grown if i.name not in voting)
    assert learner.sql("INSERT INTO g VALUES (1)") == 1
    wait_until(lambda: learner.sql("SELECT count(*) FROM g") == [[1]], "a learner to learn")


def test_a_dead_voter_s_place_is_taken_and_stays_taken(grown):
    leader = grown.leader()
    voting = voters(leader)
    spare = next(i for i in grown if i.name not in voting)
    victim = next(i for i in grown if i.name in voting and i is not leader)
    victim.kill()
    wanted = voting - {victim.name} | {spare.name}
    wait_voters(grown, lambda v: v == wanted, "the learner to vote in the place of the dead one")
    victim.start()
    grown.wait_whole()
    wait_voters(grown, lambda v: v == wanted, "the one that is back to learn")
    # The next that dies may be the leader: the voters elect another, and the learner takes the free place.
    leader = grown.leader()
    leader.kill()
    wanted = wanted - {leader.name} | {victim.name}
    wait_voters(grown, lambda v: v == wanted, "the learner to vote in the place of the leader")
    leader.start()
    grown.wait_whole()


def test_voters_stand_in_different_failure_domains(workshop):
    cluster = workshop.cluster(5)
    zones = dict(zip([i.name for i in cluster], "aaabc", strict=True))
    for instance in cluster:
        instance.config["failure_domain"] = {"zone": zones[instance.name]}
    cluster.start()
    cluster[0].call("set_setting", "voters_max", 3)
    spread = lambda v: sorted(zones[name] for name in v) == ["a", "b", "c"]  # noqa: E731
    wait_voters(cluster, spread, "a voter in each zone")
