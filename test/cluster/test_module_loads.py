"""The module loads into the stock Tarantool, and asks it for nothing that it lacks."""

import re
import shutil
import subprocess

import pytest
from harness import ROOT, environment

LIBRARIES = ["picodata/core.so", "picodata.so", "picodata/crud.so", "picodata/peer.so"]


def tarantool(code, folder, **variables):
    env = {**environment(), **variables}
    return subprocess.run(["tarantool", "-e", code], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def symbols(path, *options):
    lines = subprocess.run(["nm", "-D", *options, path], check=True, capture_output=True, text=True).stdout.splitlines()
    return {(line.split()[-2], line.split()[-1].split("@")[0]) for line in lines}


def host_symbols():
    """What tarantool exports, by itself or by the libraries it is linked with."""
    binary = shutil.which("tarantool")
    linked = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    paths = [binary, *re.findall(r"(/\S+) \(0x", linked)]
    return {name for path in paths for _, name in symbols(path, "--defined-only")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_symbol_it_needs_is_there(library):
    path = ROOT / "build" / library
    needed = {name for kind, name in symbols(path, "--undefined-only") if kind == "U"}
    assert needed, "nm listed nothing"
    assert sorted(needed - host_symbols()) == []


def test_require_works_from_any_folder(tmp_path):
    done = tarantool("print(type(require('picodata').sql)) os.exit(0)", tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("function", 0), done.stderr


def test_make_env_sets_the_paths(tmp_path):
    script = f"""eval "$(make -s -C {ROOT} env)" && tarantool -e "require('picodata') os.exit(7)" """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr


def test_functions_before_start_are_refused_with_a_code(tmp_path):
    code = """
        local ok, err = pcall(require('picodata').sql, 'SELECT 1')
        print(ok, err.code, err.message)
        os.exit(0)
    """
    done = tarantool(code, tmp_path)
    assert done.stdout.startswith("false\t20005\t"), done.stdout + done.stderr


def test_help_lists_every_function(tmp_path):
    done = tarantool("print(require('picodata').help()) os.exit(0)", tmp_path)
    for name in ["start", "sql", "status", "crud.insert_many", "call", "bucket_id", "expel", "set_weight"]:
        assert f"picodata.{name}(" in done.stdout


def test_help_lists_every_option_of_a_start(tmp_path):
    done = tarantool("print(require('picodata').help('start')) os.exit(0)", tmp_path)
    for option in ["name (required)", "join_timeout (no end)", "bucket_count (3000)"]:
        assert f"    {option}\n" in done.stdout, done.stdout + done.stderr


def test_scans_look_ahead_on_the_host_that_we_support(workshop):
    instance = workshop.cluster(1).start()[0]
    assert "is online" in instance.log()
    assert "scans do not look ahead" not in instance.log()
