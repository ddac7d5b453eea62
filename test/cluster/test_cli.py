"""The command `picodata` and the ways to install it, as a new user meets them."""

import os
import shutil
import subprocess

import pytest
from harness import PASSWORD, ROOT, environment, wait_until

PROGRAM = ROOT / "lua" / "bin" / "picodata"


def run(*words, program=PROGRAM, text="", env=None, cwd=None):
    """Runs the command: its exit status, output and complaints."""
    done = subprocess.run(
        [program, *words],
        input=text,
        env=env or {**environment(), "HOME": "/nonexistent"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def address(instance):
    return f"admin:{PASSWORD}@{instance.address}"


@pytest.fixture(scope="module")
def shop(shared_workshop):
    cluster = shared_workshop.cluster(2).start()
    cluster[0].sql("CREATE TABLE t (id INT PRIMARY KEY, name TEXT)")
    cluster[0].sql("INSERT INTO t VALUES (1, 'one'), (2, NULL)")
    return cluster


def test_usage(tmp_path):
    for words in [["--help"], ["help"], ["-h"]]:
        status, out, _ = run(*words)
        assert status == 0 and "picodata sql" in out and "picodata run" in out
    for words in [[], ["slq"]]:
        status, out, err = run(*words)
        assert (status, out) == (2, "") and "picodata sql" in err
    assert "slq" in run("slq")[2]


def test_statements_come_from_the_command_line_or_standard_input(shop):
    status, out, err = run("sql", address(shop[1]), "-c", "SELECT * FROM t ORDER BY id")
    assert (status, err) == (0, "")
    assert out.splitlines() == [" id | name", "----+------", "  1 | one", "  2 | NULL", "(2 rows)"]
    status, out, err = run("sql", address(shop[0]), text="INSERT INTO t VALUES (3, 'x');\nSELECT count(*)\nFROM t;")
    assert (status, err) == (0, "")
    assert out.splitlines() == ["1 row", " count", "-------", "     3", "(1 row)"]
    env = {**environment(), "PICODATA_PASSWORD": PASSWORD}
    assert run("sql", shop[0].address, "-c", "DELETE FROM t WHERE id = 3", env=env)[:2] == (0, "1 row\n")
    status, out, err = run("sql", address(shop[0]), text="\\d\n\\d t\n\\s\n")
    assert status == 0 and "sharded" in out and "integer" in out and "i2" in out, out + err


def test_a_transaction_is_sent_as_one(shop):
    shop[0].sql("CREATE TABLE account (id INT PRIMARY KEY, n INT NOT NULL CHECK (n >= 0))")
    shop[0].sql("INSERT INTO account VALUES (1, 5)")
    update = "UPDATE account SET n = {} WHERE id = 1;"
    transaction = f"BEGIN; {update} -- first; second\n{update} COMMIT"
    for last, status, left in [("-5", 1, 5), ("7", 0, 7)]:
        text = transaction.format(1, last)
        assert run("sql", address(shop[0]), "-c", text)[0] == status
        assert shop[0].sql("SELECT n FROM account") == [[left]]
        assert run("sql", address(shop[0]), text=f"/* ; */ {text};\nSELECT 1;\n")[0] == status
        assert shop[0].sql("SELECT n FROM account") == [[left]]
    status, _, err = run("sql", address(shop[0]), text="BEGIN; UPDATE account SET n = 1 WHERE id = 1;\n")
    assert status == 1 and "COMMIT" in err
    assert shop[0].sql("SELECT n FROM account") == [[7]]


def test_semicolons_in_strings_and_comments_end_no_statement(shop):
    for text, shown in [("$$a;b$$", "a;b"), ("$t$a;$$;b$t$", "a;$$;b"), (r"E'a\';b'", "a';b"), ("'a;' || 'b'", "a;b")]:
        status, out, err = run("sql", address(shop[0]), "-c", f"SELECT {text} AS x; SELECT 1 AS y /* a /* ; */ ; */")
        assert (status, err) == (0, "") and shown in out and " y" in out, (text, out, err)


def test_an_unfinished_statement_is_an_error(shop):
    for text in ['SELECT "a', "SELECT 'a", "INSERT INTO t VALUES (9, 'x') /* a"]:
        status, _, err = run("sql", address(shop[0]), text=text)
        assert status == 1 and "20100" in err, (text, err)
    assert shop[0].sql("SELECT count(*) FROM t WHERE id = 9") == [[0]]


def test_what_fails_says_why_and_ends_with_1(shop):
    status, _, err = run("sql", address(shop[0]), "-c", "SELECT nme FROM t")
    assert status == 1 and 'did you mean "name"' in err and "20102" in err
    status, _, err = run("sql", address(shop[0]), text="SELEC 1;\nSELECT 1;")
    assert status == 1 and "20100" in err
    status, _, err = run("sql", f"admin:wrong@{shop[0].address}", "-c", "SELECT 1")
    assert status == 1 and shop[0].address in err and "password" in err
    status, _, err = run("sql", shop[0].address, "-c", "SELECT 1")
    assert status == 1 and "PICODATA_PASSWORD" in err
    for command in ["\\x", "\\d nowhere", "\\i nowhere.sql"]:
        status, out, err = run("sql", address(shop[0]), text=f"{command}\nSELECT 1 AS one;")
        assert status == 1 and command.split()[-1] in err and " one" in out, (command, err)
    status, _, err = run("sql", "127.0.0.1:1", "-c", "SELECT 1")
    assert status == 1 and "127.0.0.1:1" in err and "refused" in err
    status, _, err = run("sql", "nowhere", "-c", "SELECT 1")
    assert status == 1 and "HOST:PORT" in err
    status, _, err = run("expel", "i9", address(shop[0]))
    assert status == 1 and "i9" in err and "error 20309" in err
    assert run("expel")[0] == 2
    assert run("sql", address(shop[0]), "-c")[0] == 2
    status, _, err = run("sql", address(shop[0]), "more")
    assert status == 2 and "more" in err


def test_status_shows_instances_and_replicasets(shop):
    status, out, _ = run("status", address(shop[0]))
    assert status == 0
    for word in ["cluster test", "i1", "i2", "Online", "master", "1500"]:
        assert word in out, out


def test_an_instance_runs_from_a_yaml_file(workshop, tmp_path):
    instance = workshop.instance(name="y1")
    lines = [f"{key}: {value!r}" for key, value in instance.config.items()]
    (tmp_path / "y1.yaml").write_text("\n".join(lines))
    process = subprocess.Popen([PROGRAM, "run", tmp_path / "y1.yaml"], env=environment(), cwd=tmp_path)
    try:
        wait_until(lambda: instance.sql("SELECT 1") == [[1]], "the instance to answer")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    "text, word",
    [
        (None, "No such file"),
        ("a: [", "YAML"),
        ("just words", "table of options"),
        ("lissten: x", 'did you mean "listen"'),
        ("name: i1\nlisten: 0.0.0.0:1\nadvertise: 127.0.0.1:1", "admin_password"),
    ],
)
def test_a_wrong_yaml_file_is_refused_with_the_reason(tmp_path, text, word):
    if text is not None:
        (tmp_path / "f.yaml").write_text(text)
    status, _, err = run("run", tmp_path / "f.yaml", cwd=tmp_path)
    assert status == 1 and word in err, err


def plain_environment():
    """The environment of somebody who has set no paths."""
    return {key: value for key, value in os.environ.items() if key not in ("LUA_PATH", "LUA_CPATH")}


def make(*words):
    done = subprocess.run(["make", "-s", "-C", ROOT, *words], env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_env_lets_any_tarantool_find_the_build(tmp_path):
    code = "io.write(type(require('picodata').start)) os.exit(0)"
    script = f'{make("env")}\ntarantool -e "{code}" && command -v picodata'
    words = ["bash", "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("function") and done.stdout.strip().endswith("/lua/bin/picodata")


def test_what_make_install_puts_below_a_prefix_runs_from_there(workshop, tmp_path):
    prefix = tmp_path / "prefix"
    make("install", f"PREFIX={prefix}")
    program = prefix / "bin" / "picodata"
    env = plain_environment()
    instance = workshop.instance(name="p1")
    (tmp_path / "p1.yaml").write_text("\n".join(f"{key}: {value!r}" for key, value in instance.config.items()))
    process = subprocess.Popen([program, "run", tmp_path / "p1.yaml"], env=env, cwd=tmp_path)
    try:
        wait_until(lambda: instance.sql("SELECT 1") == [[1]], "the instance to answer")
        status, out, err = run("sql", address(instance), "-c", "SELECT 2 AS two", program=program, env=env)
        assert (status, out.splitlines()[0], err) == (0, " two", "")
        mapped = (f"/proc/{process.pid}/maps", str(prefix / "lib"))
        with open(mapped[0]) as maps:
            assert mapped[1] in maps.read(), "the module is the installed one"
    finally:
        process.kill()
        process.wait()


def test_luarocks_make_installs_what_require_finds(tmp_path):
    if not shutil.which("luarocks"):
        pytest.skip("luarocks is not installed: apt-get install luarocks")
    tree = tmp_path / "tree"
    words = ["luarocks", "--lua-version", "5.1", "--tree", tree, "make", "picodata-scm-1.rockspec"]
    done = subprocess.run(words, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    env = {
        **plain_environment(),
        "LUA_PATH": f"{tree}/share/lua/5.1/?.lua;;",
        "LUA_CPATH": f"{tree}/lib/lua/5.1/?.so;;",
    }
    code = "print(type(require('picodata').start), package.loaded['picodata.core'] ~= nil) os.exit(0)"
    done = subprocess.run(["tarantool", "-e", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "function\ttrue\n", done.stdout + done.stderr
    assert run("help", program=tree / "bin" / "picodata", env=plain_environment())[0] == 0
