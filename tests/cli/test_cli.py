"""The `trioktor` command, as a person runs it: its lines, its errors, its exit status."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme

from tests.support.command import COMMAND, HERE, LISTENING, PATIENCE, Program, connected, fails, program
from tests.support.helpers import RawClient, close
from trioktor import Frame, __version__
from trioktor.cli import main
from trioktor.protocol.native import is_native

# echo


async def test_echo_prints_its_address_and_a_line_for_each_connection() -> None:
    """Opened and closed, with code, reason, frames and bytes each way; two for each, and nothing else."""
    async with program("echo", "--port", "0") as echo:
        port = await echo.port()
        async with connected(port, b"/echo") as client:
            opened = await echo.line()
            assert re.search(r"\bopened\b.*/echo\b.*127\.0\.0\.1", opened)
            await client.send(Frame.Text("12345"), close(4000, "so long"))
            assert await client.receive() == Frame.Text("12345")
            closed = await echo.line()
            assert re.search(r"\bclosed\b.*/echo\b.*127\.0\.0\.1.*4000.*so long", closed)
            numbers = re.search(r"in (\d+) frames (\d+) bytes, out (\d+) frames (\d+) bytes", closed)
            assert numbers is not None
            frames_in, bytes_in, frames_out, bytes_out = map(int, numbers.groups())
            assert (frames_in, frames_out) == (2, 2)
            assert bytes_in == (6 + 5) + (6 + 9)
            assert bytes_out == (2 + 5) + (2 + 2)
        echo.signal(signal.SIGTERM)
        assert await echo.wait() == (0, [], [])


async def test_a_quiet_server_prints_its_address_only() -> None:
    """`--quiet`: no line for each connection."""
    async with program("echo", "--port", "0", "--quiet") as echo:
        async with connected(await echo.port()) as client:
            await client.send(close(1000))
            assert await client.receive() == close(1000)
        echo.signal(signal.SIGTERM)
        assert await echo.wait() == (0, [], [])


@pytest.mark.parametrize(
    "arguments",
    [[], ["echo", "--port", "x"], ["echo", "--timeout", "soon"], ["echo", "--unknown"], ["serve"], ["connect"], ["x"]],
    ids=" ".join,
)
def test_wrong_arguments_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As with every command: usage on standard error."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("usage: trioktor")
    assert "Traceback" not in errors


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`trioktor --version`."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    kind = "native" if is_native else "pure Python"
    assert capsys.readouterr().out == f"trioktor {__version__} ({kind})\n"


# where it listens


async def test_a_port_in_use_is_one_line() -> None:
    """It says which, and what is wrong."""
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with program("echo", "--port", str(port)) as echo:
            status, output, errors = await echo.wait()
    assert (status, output, len(errors)) == (1, [], 1)
    assert str(port) in errors[0]
    assert "in use" in errors[0]


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--port", "99999", "port must be a whole number from 0 to 65535, not 99999"),
        ("--port", "-1", "port must be"),
        ("--shutdown-grace", "-1", "shutdown_grace must be"),
        ("--shutdown-grace", "nan", "shutdown_grace must be"),
        ("--unix", "", "path must be"),
    ],
)
def test_a_place_that_makes_no_sense_is_one_line(
    flag: str, value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the argument, and nothing listens."""
    assert text in fails(capsys, "echo", f"{flag}={value}")


async def test_a_unix_socket_instead_of_a_port(tmp_path: Path) -> None:
    """`--unix`: the path is printed, and removed at the end."""
    path = tmp_path / "socket"
    async with program("echo", "--unix", path) as echo:
        assert (await echo.line()).startswith(f"listening on {path}, at most ")
        client = RawClient(await trio.open_unix_socket(path))  # and no page: browsers cannot open it
        await client.upgrade()
        await client.send(Frame.Text("hello"))
        assert await client.receive() == Frame.Text("hello")
        await client.send(close(1000))
        await client.receive_rest()
        await client.aclose()
        echo.signal(signal.SIGTERM)
        status, output, _ = await echo.wait()
        assert (status, [line for line in output if "page" in line]) == (0, [])
    assert not path.exists()


def test_a_unix_socket_in_use_names_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another port would not help."""
    error = fails(capsys, "echo", "--unix", str(tmp_path))
    assert f"cannot listen on {tmp_path}: " in error
    assert error.count(str(tmp_path)) == 1
    assert "port" not in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--certificate", "missing.pem"], "missing.pem"),
        (["--key", "missing.pem"], "--certificate"),
        (["--certificate", __file__], "test_cli.py: not a certificate and its key in PEM"),
        (["--unix-mode", "660"], "--unix-mode goes with --unix"),
    ],
    ids=["missing", "key alone", "no certificate", "mode alone"],
)
def test_what_goes_with_something_else_is_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which file, or what is missing."""
    assert text in fails(capsys, "echo", "--port", "0", *arguments)


async def test_tls_from_files(tmp_path: Path) -> None:
    """`--certificate` and `--key` make it wss, and `connect --ca` trusts it; others are told that they do not."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "chain.pem", append=True)
    arguments: list[str | Path] = ["--certificate", tmp_path / "chain.pem", "--key", tmp_path / "key.pem"]
    async with program("echo", "--port", "0", *arguments) as echo:
        line = await echo.line()
        found = LISTENING.fullmatch(line)
        assert found is not None
        assert found[1] == "wss"
        assert await echo.line() == f"a page to try it: https://{HERE}:{found[2]}/"
        url = f"wss://{HERE}:{found[2]}/echo"
        async with program("connect", "--ca", tmp_path / "ca.pem", url) as client:
            await client.write("hello\n")
            await client.close_input()
            status, output, errors = await client.wait()
            assert (status, output) == (0, ["hello"])
            assert "Traceback" not in "".join(errors)
        async with program("connect", url) as client:
            status, output, errors = await client.wait()
            assert (status, output, len(errors)) == (1, [], 1)
            assert "TLS" in errors[0]
        async with program("connect", url.replace("wss:", "ws:")) as client:
            status, output, errors = await client.wait()
            assert (status, output, len(errors)) == (1, [], 1)


# signals


@pytest.fixture(autouse=True)
def hang_ups() -> Iterator[None]:
    """Programs hear of a hang-up, even if these tests run where it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


async def test_the_first_signal_stops_gracefully() -> None:
    """Clients get 1001, and the exit status is 0."""
    async with program("echo", "--port", "0", "--quiet") as echo:
        port = await echo.port()
        async with connected(port) as first, connected(port) as second:
            echo.signal(signal.SIGINT)
            for client in (first, second):
                assert await client.receive() == close(1001)
                await client.send(close(1001))
                assert await client.receive() is None
        assert await echo.wait() == (0, [], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_without_clients_ends_it_at_once(number: signal.Signals) -> None:
    """Each of them, with status 0."""
    async with program("echo", "--port", "0") as echo:
        await echo.port()
        echo.signal(number)
        assert await echo.wait() == (0, [], [])


STUBBORN: Final = """
import sys, time
import trio
from trioktor import Application, WebSockets
app = Application()
app.install(WebSockets(handler_grace=None))

@app.websocket("/")
async def handler(session):
    {body}

@app.get("/slow")
async def slow(call):
    print("asked", flush=True)
    {body}
"""
BODIES: Final = {
    "sleeps": "await trio.sleep_forever()",
    "thread": "await trio.to_thread.run_sync(time.sleep, 3600)",
    "shielded": "with trio.CancelScope(shield=True): await trio.sleep_forever()",
    "blocks": "await trio.sleep(0); time.sleep(0.2); print('blocks', flush=True)\n    while True: pass",
}


@asynccontextmanager
async def stubborn(tmp_path: Path, body: str, *options: str) -> AsyncIterator[Program]:
    """A server whose handlers do not return."""
    (tmp_path / "stubborn.py").write_text(STUBBORN.format(body=BODIES[body]))
    async with program("serve", "stubborn:app", "--port", "0", "--quiet", *options, cwd=tmp_path) as server:
        yield server


@pytest.mark.parametrize("body", ["sleeps", "thread", "shielded"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),
    ],
    ids=["INT INT", "TERM TERM", "TERM INT", "HUP TERM"],
)
async def test_a_second_signal_ends_it_at_once(
    first: signal.Signals, second: signal.Signals, body: str, tmp_path: Path
) -> None:
    """Whatever handlers and peers do meanwhile: no traceback, and the end is that signal's own."""
    async with (
        stubborn(tmp_path, body, "--shutdown-grace", "3600") as server,
        connected(await server.port()) as client,
    ):
        server.signal(first)
        assert await client.receive() == close(1001)
        server.signal(second)
        assert await server.wait() == (-second, [], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_a_loop_that_is_blocked(number: signal.Signals, tmp_path: Path) -> None:
    """No task of it runs any more, and nobody but the system can hear the signal."""
    async with stubborn(tmp_path, "blocks") as server, connected(await server.port()):
        assert await server.line() == "blocks"
        server.signal(number)
        with trio.fail_after(PATIENCE):
            while server.is_running:
                await trio.sleep(0.1)
                server.signal(number)
        assert await server.wait() == (-number, [], [])


@pytest.mark.parametrize("what", ["websocket", "get"])
@pytest.mark.parametrize("body", ["sleeps", "thread", "shielded"])
async def test_the_first_signal_ends_it_whatever_handlers_do(body: str, what: str, tmp_path: Path) -> None:
    """A handler that heeds its cancellation ends with it; any other is left behind, and the log says so."""
    async with stubborn(tmp_path, body, "--shutdown-grace", "0") as server:
        port = await server.port()
        if what == "get":
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert await server.line() == "asked"
                server.signal(signal.SIGTERM)
                status, _, errors = await server.wait()
        else:
            async with connected(port):
                server.signal(signal.SIGTERM)
                status, _, errors = await server.wait()
    if body == "sleeps":
        assert (status, errors) == (0, [])
    else:
        assert status == -signal.SIGTERM
        assert len(errors) == 2
        assert "does not heed its cancellation" in errors[0]
        assert "the process ends without them" in errors[1]


async def test_a_hang_up_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As `nohup` has it."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom trioktor.cli import main\nmain()"
    async with program("echo", "--port", "0", "--quiet", command=[sys.executable, "-c", code]) as echo:
        port = await echo.port()
        echo.signal(signal.SIGHUP)
        async with connected(port) as client:
            await client.send(Frame.Text("still here"))
            assert await client.receive() == Frame.Text("still here")
            echo.signal(signal.SIGTERM)
            assert await client.receive() == close(1001)


# serve


async def test_serve_serves_an_application_of_ones_own(tmp_path: Path) -> None:
    """A module in the working directory, or in a package there."""
    code = (
        "from trioktor import Application, WebSockets\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        "@app.websocket('/')\n"
        "async def handler(session):\n"
        "    await session.send('my own')\n"
    )
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "chat.py").write_text(code)
    async with (
        program("serve", "package.chat:app", "--port", "0", cwd=tmp_path) as server,
        connected(await server.port()) as client,
    ):
        assert await client.receive() == Frame.Text("my own")


async def test_a_module_that_serves_under_its_guard_is_served(tmp_path: Path) -> None:
    """As in the tutorial; and by itself it serves, too."""
    (tmp_path / "server.py").write_text(
        "from trioktor import Application, WebSockets, run\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        "if __name__ == '__main__':\n"
        "    run(app, 0)\n"
    )
    async with program("serve", "server:app", "--port", "0", cwd=tmp_path) as server:
        await server.port()
        server.signal(signal.SIGINT)
        assert await server.wait() == (0, [], [])


LOGGING_OF_ITS_OWN: Final = {
    "the root": "logging.basicConfig(level=logging.INFO, format='mine: %(message)s', stream=sys.stdout)\n",
    "our tree": (
        "handler = logging.StreamHandler(sys.stdout)\n"
        "handler.setFormatter(logging.Formatter('mine: %(message)s'))\n"
        "logging.getLogger('trioktor').addHandler(handler)\n"
        "logging.getLogger('trioktor').setLevel('INFO')\n"
    ),
    "silence": "logging.getLogger('trioktor').addHandler(logging.NullHandler())\n",
}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
@pytest.mark.parametrize("how", LOGGING_OF_ITS_OWN)
async def test_a_module_that_sets_up_logging_is_left_to_it(how: str, quiet: list[str], tmp_path: Path) -> None:
    """Each line comes once, and as the module has it; `--quiet` leaves out those for connections."""
    (tmp_path / "logs.py").write_text(
        "import logging, sys\n"
        "from trioktor import Application, WebSockets\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        "@app.websocket('/')\n"
        "async def handler(session):\n"
        "    pass\n"
        f"{LOGGING_OF_ITS_OWN[how]}"
    )
    async with program("serve", "logs:app", "--port", "0", *quiet, cwd=tmp_path) as server:
        async with connected(await server.port()) as client:
            assert await client.receive() == close(1000)
            await client.send(close(1000))
            assert await client.receive() is None
        server.signal(signal.SIGTERM)
        status, output, errors = await server.wait()
    assert (status, errors) == (0, [])
    expected = [] if quiet or how == "silence" else [r"mine: closed / for \('127\.0\.0\.1', .*"]
    assert len(output) == len(expected)
    assert all(map(re.fullmatch, expected, output))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_streams_may_be_closed(closed: str, echo_port: int) -> None:
    """As for a service that has none: a client does what it can."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    async with program("connect", f"ws://{HERE}:{echo_port}/", "--wait", "0.1", command=command) as client:
        with suppress(trio.BrokenResourceError):
            await client.write("hello\n")
        await client.close_input()
        status, output, errors = await client.wait()
    assert status == 0
    assert output == (["hello"] if closed == "2>&-" else [])
    assert not any("Traceback" in line for line in errors)


async def test_a_server_whose_lines_nobody_takes_goes_on(tmp_path: Path) -> None:
    """There is no room for them; nothing is said of that."""
    path = tmp_path / "socket"
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND]
    async with program("echo", "--unix", path, command=command) as server:
        stream: trio.SocketStream | None = None
        with trio.fail_after(PATIENCE):
            while stream is None:  # nothing else tells that it listens
                with suppress(OSError):
                    stream = await trio.open_unix_socket(path)
                await trio.sleep(0.01)
        async with stream:
            client = RawClient(stream)
            await client.upgrade()
            await client.send(Frame.Text("hello"))
            assert await client.receive() == Frame.Text("hello")
        server.signal(signal.SIGINT)
        _, output, errors = await server.wait()
    assert output == []
    assert not any("Traceback" in line or "cannot listen" in line for line in errors)
