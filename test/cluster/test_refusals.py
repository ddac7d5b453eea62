"""A start that can not be: it is refused with a code and a sentence that says what to do, and nobody else notices."""

import re
import socket
import subprocess

import ports
import pytest
from harness import environment, lua, wait_until

MEMORY = 32 << 20
CONFIG, ACCESS_DENIED, TIMEOUT, FOREIGN_CLUSTER, NAME_TAKEN, CORRUPTED = 20001, 20003, 20201, 20307, 20308, 20401


@pytest.fixture(scope="module")
def one(shared_workshop):
    """A cluster of one instance, i1."""
    return shared_workshop.cluster(1).start()


def refused(instance, code, *words):
    """Starts it, waits for its end, and checks what it said."""
    instance.start()
    return was_refused(instance, code, *words)


def was_refused(instance, code, *words):
    assert instance.exit_code() == 1, instance.log()
    said = re.search(r"refused with (\d+): (.*)", instance.log())
    assert said and int(said[1]) == code, instance.log()
    for word in words:
        assert word in said[2]
    return said[2]


def serves(cluster):
    """The cluster is as it was."""
    status = cluster[0].status()
    assert [i["name"] for i in status["instances"]] == ["i1"]
    assert cluster[0].sql("SELECT 1") == [[1]]


@pytest.mark.parametrize(
    "config, words",
    [
        ({"lissten": "127.0.0.1:1"}, ['no option "lissten"', 'did you mean "listen"']),
        ({"colour": "blue"}, ['no option "colour"', "picodata.help('start')"]),
        ({"memtx_memory": "much"}, ["memtx_memory", "integer"]),
        ({"memtx_memory": 1 << 50}, ["memtx_memory"]),
        ({"peers": "127.0.0.1:1"}, ["peers", "addresses"]),
        ({"peers": [3301]}, ["peers", "addresses"]),
        ({"peers": []}, ["peers", "addresses"]),
        ({"peers": ["nowhere"]}, ["peers", "nowhere", "127.0.0.1:3301"]),
        ({"replication_factor": 0}, ["replication_factor", "can not be 0"]),
        ({"bucket_count": 10_000_000}, ["bucket_count"]),
        ({"bucket_count": 1.5}, ["bucket_count", "integer"]),
        ({"name": "a b"}, ["name"]),
        ({"name": 5}, ["name", "string"]),
        ({"wal_mode": "never"}, ["wal_mode", "'fsync'"]),
        ({"cluster_secret": ""}, ["cluster_secret", "empty"]),
        ({"failure_domain": "a"}, ["failure_domain", "zone"]),
        ({"join_timeout": -1}, ["join_timeout", "seconds"]),
        ({"log_level": 8}, ["log_level", "0 to 7"]),
        ({"data_dir": True}, ["data_dir", "folder"]),
    ],
    ids=str,
)
def test_a_wrong_configuration(workshop, config, words):
    instance = workshop.instance()
    instance.config.update(config)
    refused(instance, CONFIG, *words)


@pytest.mark.parametrize(
    "listen, words",
    [
        ("nowhere", ["listen", "127.0.0.1:3301"]),
        ("127.0.0.1:70000", ["listen", "65535"]),
        (3301, ["listen", "string"]),
        ("192.0.2.1:3301", ["192.0.2.1:3301", "advertise"]),
        ("no-such-host.invalid:3301", ["no-such-host.invalid", "advertise"]),
        ("0.0.0.0:3301", ["advertise"]),
    ],
)
def test_an_address_that_is_none_of_ours(workshop, listen, words):
    instance = workshop.instance()
    instance.config["listen"] = listen
    refused(instance, CONFIG, *words)


@pytest.mark.parametrize("missing", ["admin_password", "cluster_secret"])
def test_an_open_address_without_passwords(workshop, missing):
    instance = workshop.instance()
    instance.config.update(listen=f"0.0.0.0:{instance.port}", advertise=instance.address)
    del instance.config[missing]
    refused(instance, CONFIG, missing)


def test_a_port_in_use(workshop):
    instance = workshop.instance()
    # Both without data and with.
    for _ in range(2):
        with socket.create_server((instance.host, instance.port)):
            refused(instance, CONFIG, instance.address, "in use", "another listen")
        instance.log_path.unlink()
        instance.start()
        wait_until(lambda: instance.sql("SELECT 1") == [[1]], "the instance to serve")
        instance.stop()


def tarantool(code, folder):
    """Runs Lua in a process of its own: what it printed."""
    words = ["tarantool", "-e", f"{code} os.exit(0)"]
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", ["", "nil", "'x'", "{1, 2}", "{name = 'i1'}, 1"])
def test_what_is_no_table_of_options(tmp_path, arguments):
    code = f"print(pcall(function() require('picodata').start({arguments}) end)) print(box.error.last().code)"
    said = tarantool(code, tmp_path)
    assert str(CONFIG) in said and "takes one table of options" in said


def test_a_second_start_in_one_process(one):
    code = """
        local ok, err = pcall(require('picodata').start, {name = 'i2', data_dir = '/nonexistent'})
        return {ok, err.code, err.message}
    """
    ok, number, message = one[0].eval(code)[0]
    assert (ok, number) == (False, CONFIG) and "process of its own" in message
    serves(one)


def test_a_process_that_has_called_box_cfg(tmp_path):
    options = {"name": "i1", "data_dir": str(tmp_path / "i1")}
    code = f"""
        box.cfg{{memtx_memory = {MEMORY}}}
        local ok, err = pcall(require('picodata').start, {lua(options)})
        print(err.code, err.message)
    """
    said = tarantool(code, tmp_path)
    assert said.startswith(f"{CONFIG}\t") and "box.cfg" in said and "new process" in said
    assert not (tmp_path / "i1").exists()


def test_a_folder_with_data_of_a_plain_tarantool(workshop):
    instance = workshop.instance()
    folder = instance.folder / "data"
    folder.mkdir()
    tarantool(f"box.cfg{{memtx_memory = {MEMORY}}}", folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert any(name.endswith(".snap") for name in before)
    refused(instance, CONFIG, str(folder), "not picodata's", "empty data_dir")
    for name, content in before.items():
        assert (folder / name).read_bytes() == content, "the data is untouched"


@pytest.mark.parametrize("folder", ["/proc/picodata", "/proc", "/dev/null", "/dev/null/data"])
def test_a_folder_that_can_not_be_written(workshop, folder):
    refused(workshop.instance(data_dir=folder), CONFIG, folder, "data_dir takes a folder")


def test_a_folder_that_another_process_runs_on(one, workshop):
    second = workshop.instance(cluster="test", data_dir=one[0].config["data_dir"], peers=one.peers)
    refused(second, CONFIG, "another process runs on this folder", "data_dir of its own")
    serves(one)


def test_a_folder_of_another_instance_or_cluster(workshop):
    cluster = workshop.cluster(1).start()
    folder = cluster[0].config["data_dir"]
    cluster.stop()
    same = {"data_dir": folder, "peers": cluster.peers}
    refused(workshop.instance(name="i2", cluster="test", **same), CONFIG, '"i1"', "data_dir of its own")
    refused(workshop.instance(name="i1", cluster="other", **same), FOREIGN_CLUSTER, '"test"', "data_dir of its own")
    serves(cluster.start())


def test_a_folder_whose_identity_is_damaged(workshop):
    cluster = workshop.cluster(1).start()
    cluster.stop()
    identity = cluster[0].folder / "data" / "picodata.identity"
    whole = identity.read_bytes()
    identity.write_bytes(whole[: len(whole) // 2])
    refused(cluster[0], CORRUPTED, "picodata.identity", "expel")
    identity.write_bytes(whole)
    serves(cluster.start())


def test_a_founder_that_lost_its_data_and_knows_nobody_else(workshop):
    """Another cluster would be founded under the identity of the one that is gone."""
    cluster = workshop.cluster(1).start()
    cluster.stop()
    for file in (cluster[0].folder / "data").iterdir():
        if file.suffix in (".snap", ".xlog"):
            file.unlink()
    refused(cluster[0], CONFIG, "finds no other member of its cluster", "peers")


def test_a_taken_name(one, workshop):
    refused(workshop.instance(name="i1", cluster="test", peers=one.peers), NAME_TAKEN, '"i1"')
    serves(one)


def test_a_name_that_another_starts_with_at_the_same_time(workshop):
    first = workshop.instance(folder_name="first")
    second = workshop.instance(folder_name="second", peers=[first.address])
    first.config["peers"] = [second.address]
    first.start()
    second.start()
    # Whoever is asked first refuses the other.
    wait_until(lambda: not (first.is_running() and second.is_running()), "one of them to give up")
    for ended in [i for i in (first, second) if not i.is_running()]:
        was_refused(ended, NAME_TAKEN, '"i1"')


def test_a_peer_of_another_cluster(one, workshop):
    refused(workshop.instance(name="i9", cluster="other", peers=one.peers), FOREIGN_CLUSTER, '"test"', "peers")
    serves(one)


def test_a_wrong_secret(one, workshop):
    stranger = workshop.instance(name="i9", cluster="test", peers=one.peers, cluster_secret="wrong")
    refused(stranger, ACCESS_DENIED, "cluster_secret")
    serves(one)


def test_a_peer_that_is_a_plain_tarantool(workshop, tmp_path):
    plain = f"127.0.0.1:{ports.take()}"
    code = f"box.cfg{{listen = '{plain}', memtx_memory = {MEMORY}}} print('serves') io.stdout:flush()"
    words = ["tarantool", "-e", code]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline() == b"serves\n"
        refused(workshop.instance(peers=[plain]), ACCESS_DENIED, plain, "none of its instances")
    finally:
        process.kill()
        process.wait()


def test_peers_that_nobody_is_at(workshop):
    instance = workshop.instance(name="i2", peers=["127.0.0.1:1"], join_timeout=0.5)
    refused(instance, TIMEOUT, "127.0.0.1:1", "all of them have to run")
