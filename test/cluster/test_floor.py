"""The module's floor on real processes: doors, spaces, fibers, threads, and connections between instances."""

import os
import signal
import subprocess
import textwrap

import ports
import pytest
from harness import ROOT, environment, wait_until

TIMEOUT, UNREACHABLE, WRONG_BUCKET, FOREIGN, INTERNAL = 20201, 20305, 20303, 20307, 20000

PRELUDE = """
    local core, mp, fiber = require('picodata.core'), require('msgpack'), require('fiber')
    local function call(name, ...) return (mp.decode(core.call(name, mp.encode({...})))) end
    local function expect(actual, expected)
        local as_text = require('json').encode
        if as_text(actual) ~= as_text(expected) then
            error('got ' .. as_text(actual) .. ' instead of ' .. as_text(expected), 2)
        end
    end
    local function fate(...) local answer = call(...) return {answer[1], answer[2]} end
    local function serve(listen)
        box.cfg{listen = listen, log = 'log'}
        box.schema.user.create('pico_service', {password = 's3cret'})
        for _, name in pairs({'procedure', 'join', 'batch'}) do
            box.schema.func.create('picodata.peer.' .. name, {language = 'C'})
            box.schema.user.grant('pico_service', 'execute', 'function', 'picodata.peer.' .. name)
        end
        box.schema.space.create('t', {id = 600, format = {{'id', 'unsigned'}, {'v', 'string'}}}):create_index('pk')
    end
"""


def command(script):
    body = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    return ["tarantool", "-e", f"local ok, err = xpcall(function() {body}\nend, debug.traceback) " + END]


# Without an exit the process would go on serving.
END = "if not ok then io.stderr:write(tostring(err)) os.exit(1) end if not SERVES then os.exit(0) end"


def floor_environment():
    return {**environment(), "LUA_CPATH": f"{ROOT}/build/floor/?.so;;"}


def run(script, folder, timeout_s=60):
    done = subprocess.run(
        command(script), cwd=folder, env=floor_environment(), capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def server(tmp_path):
    """Starts processes that serve at an address until the test is over."""
    processes = []

    def start(port):
        folder = tmp_path / f"server{len(processes)}"
        folder.mkdir()
        script = f"serve('127.0.0.1:{port}') io.open('ready', 'w'):close() SERVES = true"
        process = subprocess.Popen(command(script), cwd=folder, env=floor_environment())
        processes.append(process)
        wait_until((folder / "ready").exists, "the server to listen")
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_doors_answer_alike_from_lua_and_over_iproto(tmp_path):
    port = ports.take()
    run(
        f"""
        serve({port})
        expect(call('picodata.peer.procedure', 1, 'x'), {{1, 'x'}})
        local ok, err = pcall(call, 'picodata.peer.join')
        expect({{ok, err.code, err.message}}, {{false, {WRONG_BUCKET}, 'bucket 7 moved (hint: ask again)'}})
        local conn = require('net.box').connect('pico_service:s3cret@127.0.0.1:{port}')
        expect(conn:call('picodata.peer.procedure', {{1, 'x'}}), {{1, 'x'}})
        ok, err = pcall(conn.call, conn, 'picodata.peer.join')
        expect({{ok, err.code, err.message}}, {{false, {WRONG_BUCKET}, 'bucket 7 moved (hint: ask again)'}})
        """,
        tmp_path,
    )


def test_a_panic_is_an_error_and_the_process_goes_on(tmp_path):
    run(
        f"""
        local ok, err = pcall(call, 'floor.panic')
        expect({{ok, err.code}}, {{false, {INTERNAL}}})
        expect(call('picodata.peer.procedure', 1), {{1}})
        """,
        tmp_path,
    )


@pytest.mark.parametrize("part", ["spaces", "transactions", "fibers", "waits", "inbox"])
def test_the_host_room_keeps_its_promises(part, tmp_path):
    run(f"serve({ports.take()}) call('floor.{part}')", tmp_path)


@pytest.mark.parametrize("part", ["run", "tx", "crowd", "shut_down"])
def test_the_bridge_keeps_its_promises(part, tmp_path):
    run(f"serve({ports.take()}) call('floor.bridge_{part}')", tmp_path)


def test_instances_talk_before_box_cfg(tmp_path):
    address = f"127.0.0.1:{ports.take()}"
    run(
        f"""
        local at = '{address}'
        expect(fate('floor.call', at, 'echo', 1, 1000), {{'NotSent', {UNREACHABLE}}})
        call('floor.serve', at)
        while call('floor.call', at, 'echo', 1, 1000)[1] == 'NotSent' do fiber.sleep(0.01) end
        expect(call('floor.call', at, 'echo', {{1, 'x'}}, 5000), {{'Ok', 0, {{{{1, 'x'}}}}}})
        expect(fate('floor.call', at, 'other', 1, 5000), {{'Answered', {FOREIGN}}})
        expect(fate('floor.call', at, 'panic', 1, 5000), {{'Answered', {INTERNAL}}})
        expect(fate('floor.call', at, 'slow', 1, 20), {{'Sent', {TIMEOUT}}})
        expect(fate('floor.call', at, 'echo', 1, 5000), {{'Ok', 0}})
        call('floor.stop')
        serve(at)
        while call('floor.call', at, 'picodata.peer.procedure', 1, 5000)[1] == 'NotSent' do fiber.sleep(0.01) end
        """,
        tmp_path,
    )


def test_the_early_server_serves_nobody_without_the_secret(tmp_path):
    port = ports.take()
    run(
        f"""
        call('floor.serve', '127.0.0.1:{port}')
        for _, who in pairs({{'pico_service:wrong', 'guest:', 'admin:s3cret'}}) do
            local conn = require('net.box').connect(who .. '@127.0.0.1:{port}', {{wait_connected = true}})
            expect(conn:is_connected(), false)
        end
        local raw = require('socket').tcp_connect('127.0.0.1', {port})
        raw:read(128)
        raw:write(('\\xff'):rep(1000))
        raw:readable(5)
        expect(raw:sysread(10) or '', '')
        expect(call('floor.call', '127.0.0.1:{port}', 'echo', 1, 5000), {{'Ok', 0, {{1}}}})
        """,
        tmp_path,
    )


def test_operations_of_a_loop_turn_travel_as_one_call(tmp_path):
    address = f"127.0.0.1:{ports.take()}"
    run(
        f"""
        local at = '{address}'
        serve(at)
        expect(fate('floor.operate', at, '', {{0}}, 5000), {{'Ok', 0}})
        local before, left = call('floor.batches')[1], 500
        for number = 1, left do
            fiber.create(function()
                expect(call('floor.operate', at, '', {{number}}, 5000), {{'Ok', 0, {{number}}}})
                left = left - 1
            end)
        end
        while left > 0 do fiber.sleep(0.001) end
        expect(call('floor.batches')[1] - before, 1)
        expect(fate('floor.send', at, 'picodata.peer.procedure', 1, 0), {{'Ok', 0}})
        """,
        tmp_path,
    )


def test_a_large_request_and_its_answer_pass(tmp_path):
    address = f"127.0.0.1:{ports.take()}"
    run(
        f"""
        serve('{address}')
        local big = ('x'):rep(20e6)
        local answer = call('floor.call', '{address}', 'picodata.peer.procedure', big, 30000)
        expect({{answer[1], #answer[3][1]}}, {{'Ok', #big}})
        """,
        tmp_path,
    )


def test_a_write_whose_answer_is_lost_is_known_as_sent(tmp_path, server):
    port = ports.take()
    first = server(port)
    script = f"""
        local ffi, at = require('ffi'), '127.0.0.1:{port}'
        ffi.cdef('int kill(int pid, int signal);')
        expect(fate('floor.operate', at, '', {{1}}, 5000), {{'Ok', 0}})
        ffi.C.kill({first.pid}, {signal.SIGSTOP.value})
        expect(fate('floor.operate', at, '', {{1}}, 50), {{'Sent', {TIMEOUT}}})
        expect(fate('floor.call', at, 'picodata.peer.procedure', 1, 50), {{'Sent', {TIMEOUT}}})
        local fates, left = {{}}, 100
        for number = 1, left do
            fiber.create(function()
                local answer = fate('floor.operate', at, '', {{number}}, 30000)
                fates[answer[1] .. answer[2]] = (fates[answer[1] .. answer[2]] or 0) + 1
                left = left - 1
            end)
        end
        fiber.sleep(0.05)
        ffi.C.kill({first.pid}, {signal.SIGKILL.value})
        while left > 0 do fiber.sleep(0.001) end
        expect(fates, {{Sent{UNREACHABLE} = 100}})
        while call('floor.events')[2] == 0 do fiber.sleep(0.001) end
        expect(fate('floor.call', at, 'picodata.peer.procedure', 1, 5000), {{'NotSent', {UNREACHABLE}}})
        io.open('lost', 'w'):close()
        while call('floor.call', at, 'picodata.peer.procedure', 1, 5000)[1] ~= 'Ok' do fiber.sleep(0.01) end
        expect(call('floor.events')[1], 2)
    """
    client = subprocess.Popen(command(script), cwd=tmp_path, env=floor_environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (tmp_path / "lost").exists() or client.poll() is not None, "the client to lose its server")
        if client.poll() is None:
            server(port)
        _, complaint = client.communicate(timeout=60)
    finally:
        client.kill()
    assert client.returncode == 0, complaint
    assert not os.path.exists(tmp_path / "core")
