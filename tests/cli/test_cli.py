"""The `trioktor` command, as a person runs it: its lines, its errors, its exit status."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
import trustme

from tests.support.command import COMMAND, HERE, LISTENING, PATIENCE, Program, fails, program
from tests.support.helpers import RawClient, close
from trioktor import Frame, WebSockets, __version__
from trioktor.cli import main
from trioktor.protocol.native import is_native


@asynccontextmanager
async def connected(port: int, path: bytes = b"/") -> AsyncIterator[RawClient]:
    """A client on a port, after its handshake."""
    async with await trio.open_tcp_stream(HERE, port) as stream:
        client = RawClient(stream)
        head = await client.upgrade(path)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield client


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    """The port of an echo server that several tests share."""
    with subprocess.Popen(
        [*COMMAND, "echo", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = LISTENING.fullmatch(process.stdout.readline().rstrip("\n"))
            assert found is not None
            yield int(found[2])
        finally:
            process.kill()
            process.wait()


# echo


@pytest.mark.parametrize("path", [b"/", b"/echo"])
async def test_echo_echoes_at_the_root_and_at_echo(path: bytes, echo_port: int) -> None:
    """Text and binary."""
    async with connected(echo_port, path) as client:
        for frame in (Frame.Text("Grüße"), Frame.Binary(b"\x00\xff")):
            await client.send(frame)
            assert await client.receive() == frame


async def test_the_actor_says_what_was_said_until_bye(echo_port: int) -> None:
    """The actor of Ktor's page."""
    async with connected(echo_port, b"/actor") as client:
        await client.send(Frame.Text("hello"), Frame.Binary(b"skipped"), Frame.Text("Bye"))
        assert await client.receive() == Frame.Text("YOU SAID: hello")
        assert await client.receive() == Frame.Text("YOU SAID: Bye")
        assert await client.receive() == close(1000, "Client said BYE")


async def test_a_browser_gets_a_page_at_the_root(echo_port: int) -> None:
    """HTML with a script that opens a WebSocket, and something to type into."""
    stream = await trio.open_tcp_stream(HERE, echo_port)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    async for data in stream:
        answer += data
    await stream.aclose()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: text/html; charset=utf-8" in head
    assert body.lstrip().lower().startswith(b"<!doctype html>")
    assert b"new WebSocket(" in body
    assert b"<input" in body or b"<textarea" in body


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


def test_every_setting_that_fits_a_flag_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    """All of `WebSockets` but the extensions, which are no numbers; lists are given item by item."""
    with pytest.raises(SystemExit) as end:
        main(["echo", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    flags = set(re.findall(r"(?<!\S)--[a-z-]+", text))
    expected = {f"--{field.name.replace('_', '-')}" for field in attrs.fields(WebSockets)}
    expected -= {"--extensions", "--content-converter", "--origins", "--hosts", "--subprotocols"}
    expected |= {"--origin", "--served-host", "--subprotocol"}
    assert flags >= expected | {"--host", "--port", "--certificate", "--key", "--unix"}


async def test_the_flags_are_the_settings() -> None:
    """A small limit, a subprotocol, a list of origins, pings, and masking."""
    flags = ["--max-frame-size", "10", "--subprotocol", "v2", "--subprotocol", "v1", "--origin", "https://a.example"]
    async with program("echo", "--port", "0", *flags, "--ping-period", "none", "--masking") as echo:
        port = await echo.port()
        for origin, status in [("https://a.example", b"101"), ("https://b.example", b"403")]:
            stream = await trio.open_tcp_stream(HERE, port)
            lines = [
                "GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Protocol: v1, v2", f"Origin: {origin}", "", "",
            ]  # fmt: skip
            await stream.send_all("\r\n".join(lines).encode())
            head = await stream.receive_some()
            assert head.startswith(b"HTTP/1.1 " + status)
            if status == b"101":
                assert b"\r\nSec-WebSocket-Protocol: v2\r\n" in head
                await stream.send_all(b"\x81\x83\x00\x00\x00\x00abc")
                assert (await stream.receive_some(2)) == b"\x81\x83"
            await stream.aclose()
        async with connected(port) as client:
            await client.stream.send_all(b"\x82\x8b\x00\x00\x00\x00" + b"eleven byte")
            answer = await client.stream.receive_some()
            assert answer[0] == 0x88
            code = bytes(byte ^ mask for byte, mask in zip(answer[6:8], answer[2:4], strict=True))
            assert int.from_bytes(code, "big") == 1009


@pytest.mark.parametrize(
    ("flag", "value"),
    [("timeout", "-1"), ("incoming", "0"), ("max-frame-size", "1.5"), ("subprotocol", "two words")],
)
def test_a_setting_that_makes_no_sense_is_one_line(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the setting."""
    assert flag.replace("-", "_") in fails(capsys, "echo", f"--{flag}={value}")


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
    assert f"cannot listen on {tmp_path}" in error
    assert "port" not in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--certificate", "missing.pem"], "missing.pem"),
        (["--key", "missing.pem"], "--certificate"),
        (["--certificate", __file__], "PEM"),
    ],
    ids=["missing", "key alone", "no certificate"],
)
def test_a_certificate_that_cannot_be_used_is_one_line(
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


SERVES_ITSELF: Final = {
    "run": "run(app, 0)\n",
    "run, and more": "try:\n    run(app, 0)\nexcept Exception:\n    pass\n",
    "serve": "import trio\nfrom functools import partial\ntrio.run(partial(serve, app, 0, host='127.0.0.1'))\n",
    "serve in a nursery": (
        "import trio\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(serve, app, 0)\n"
        "trio.run(main)\n"
    ),
    "another module": "import inner\n",
}


@pytest.mark.parametrize("how", SERVES_ITSELF)
async def test_a_module_that_serves_when_it_is_imported_is_refused(how: str, tmp_path: Path) -> None:
    """One line that says what to do about it; nothing ever listens."""
    (tmp_path / "inner.py").write_text("from trioktor import Application, run\nrun(Application(), 0)\n")
    (tmp_path / "server.py").write_text(
        "from trioktor import Application, WebSockets, run, serve\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        f"{SERVES_ITSELF[how]}"
    )
    async with program("serve", "server:app", "--port", "0", cwd=tmp_path) as server:
        status, output, errors = await server.wait()
    assert (status, output) == (1, [])
    (error,) = errors
    assert error.startswith("trioktor serve: importing 'server' starts a server: put that under `if __name__ ==")


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


@pytest.mark.parametrize("error", ["ValueError('a bug')", "OSError('a bug')", "RuntimeError('a bug')"])
async def test_a_module_that_cannot_be_imported_shows_where(error: str, tmp_path: Path) -> None:
    """Its traceback: whoever wrote it wants the line."""
    (tmp_path / "broken.py").write_text(f"raise {error}\n")
    async with program("serve", "broken:app", cwd=tmp_path) as server:
        status, output, errors = await server.wait()
    assert (status, output, errors[-1]) == (1, [], f"{error.partition('(')[0]}: a bug")
    assert any(re.search(r"broken\.py\", line 1", line) for line in errors)


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


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("no_such_module_here:app", "'no_such_module_here'"),
        ("trioktor.no_such_module_here:app", "'trioktor.no_such_module_here'"),
        ("trioktor:no_such_name", "trioktor:no_such_name: expected an Application, found nothing"),
        ("trioktor:__version__", "expected an Application, found a str"),
        ("trioktor:Application", "expected an Application, found a type"),
        ("trioktor", "MODULE:NAME"),
        ("trioktor:", "MODULE:NAME"),
        (":app", "MODULE:NAME"),
        ("chat.py:app", "write chat:app, the module and not its file"),
        ("./rooms/chat.py:app", "write rooms.chat:app, the module and not its file"),
        ("rooms/chat:app", "write rooms.chat:app, the module and not its file"),
        (".chat:app", "MODULE:NAME"),
        ("my chat:app", "MODULE:NAME"),
        ("/:app", "MODULE:NAME"),
    ],
)
def test_an_application_that_is_not_there_is_one_line(
    reference: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what was looked for, and what was found."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert text in fails(capsys, "serve", reference)


async def test_a_module_that_fails_shows_where(tmp_path: Path) -> None:
    """A mistake of the user's own is theirs to see: the traceback names their line."""
    (tmp_path / "broken.py").write_text("import no_such_module_here\n")
    async with program("serve", "broken:app", cwd=tmp_path) as server:
        status, _, errors = await server.wait()
    assert status == 1
    assert any("broken.py" in line for line in errors)
    assert "no_such_module_here" in errors[-1]


# connect


async def test_connect_sends_piped_lines_and_prints_the_answers(echo_port: int) -> None:
    """One line each, non-ASCII too, and an end with status 0 when all is said and answered."""
    async with program("connect", f"ws://{HERE}:{echo_port}/actor") as client:
        await client.write("hello\nGrüße, 世界\n\nlast without a line end")
        await client.close_input()
        status, output, errors = await client.wait()
    assert status == 0
    assert output == ["YOU SAID: hello", "YOU SAID: Grüße, 世界", "YOU SAID: ", "YOU SAID: last without a line end"]
    assert "Traceback" not in "".join(errors)


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict"])
async def test_connect_speaks_to_any_terminal(encoding: str, echo_port: int) -> None:
    """What it has no characters for is escaped, and what it gives is UTF-8 if it is nothing it knows."""
    async with program("connect", f"ws://{HERE}:{echo_port}/echo", PYTHONIOENCODING=encoding) as client:
        await client.write("plain\n世界\n")
        await client.close_input()
        status, output, errors = await client.wait()
    assert (status, output) == (0, ["plain", r"\u4e16\u754c"])
    assert "Traceback" not in "".join(errors)


async def test_connect_is_a_conversation(echo_port: int) -> None:
    """An answer is printed before the next line is typed; the server's goodbye ends it."""
    async with program("connect", f"ws://{HERE}:{echo_port}/actor") as client:
        await client.write("one\n")
        assert await client.line() == "YOU SAID: one"
        await client.write("bye\n")
        assert await client.line() == "YOU SAID: bye"
        status, output, errors = await client.wait()
    assert (status, output) == (0, [])
    assert errors[-1] == "closed: 1000 NORMAL Client said BYE"


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("session.close(1001)", "closed: 1001 GOING_AWAY"),
        ("await session.send(Frame.Close())", "closed: 1005 NO_STATUS"),
        ("session.terminate()", "closed: 1006 CLOSED_ABNORMALLY"),
        ("session.close(3000)", "closed: 3000"),
    ],
)
async def test_connect_names_the_code_that_it_was_closed_with(end: str, line: str, tmp_path: Path) -> None:
    """The registered codes have names; so have those that are never sent."""
    (tmp_path / "leaving.py").write_text(
        "from trioktor import Application, Frame, WebSockets\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        "@app.websocket('/')\n"
        "async def handler(session):\n"
        f"    {end}\n"
    )
    async with (
        program("serve", "leaving:app", "--port", "0", cwd=tmp_path) as server,
        program("connect", f"ws://{HERE}:{await server.port()}/") as client,
    ):
        _, _, errors = await client.wait()
    assert errors[-1] == line


async def test_ctrl_c_ends_connect_cleanly(echo_port: int) -> None:
    """Status 130, no traceback."""
    async with program("connect", f"ws://{HERE}:{echo_port}/") as client:
        await client.write("hello\n")
        assert await client.line() == "hello"
        client.signal(signal.SIGINT)
        status, output, errors = await client.wait()
    assert (status, output) == (130, [])
    assert "Traceback" not in "".join(errors)


async def test_connect_shows_what_cannot_be_printed(tmp_path: Path) -> None:
    """Binary as hex, control characters escaped, another code than a good one as status 1."""
    (tmp_path / "odd.py").write_text(
        "from trioktor import Application, WebSockets\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        "@app.websocket('/')\n"
        "async def handler(session):\n"
        "    await session.send(b'\\x00\\xff')\n"
        "    await session.send('red \\x1b[31m\\r\\n')\n"
        "    session.close(4001, 'so \\x1b long')\n"
    )
    async with (
        program("serve", "odd:app", "--port", "0", cwd=tmp_path) as server,
        program("connect", f"ws://{HERE}:{await server.port()}/") as client,
    ):
        status, output, errors = await client.wait()
    assert status == 1
    assert output == ["<2 bytes> 00 ff", r"red \x1b[31m\r\n"]
    assert errors[-1] == r"closed: 4001 so \x1b long"
    assert all(line.isprintable() for line in errors)


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "http://localhost/", "ws:", "ws://", "ws:///path", "ws://localhost:99999/", "ws://localhost:x/",
     "ws://[::1/"],
)  # fmt: skip
def test_what_is_no_websocket_address_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows the address and how one looks."""
    line = fails(capsys, "connect", url)
    assert repr(url) in line
    assert "ws://host" in line


@pytest.mark.parametrize("name", ["missing.pem", __file__], ids=["missing", "no certificate"])
def test_certificates_that_cannot_be_read_are_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which file, before anybody is called."""
    assert f"cannot use {name}: " in fails(capsys, "connect", "--ca", name, "wss://localhost:1/")


def test_a_refused_connection_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It says where to, and why not."""
    with socket.socket() as nobody:
        nobody.bind((HERE, 0))
        url = f"ws://{HERE}:{nobody.getsockname()[1]}/"
        line = fails(capsys, "connect", url)
    assert url in line
    assert "refused" in line.lower()


@pytest.mark.parametrize(
    ("path", "text"),
    [("/nothing", "404"), ("/nothing?x=1", "there is nothing at this path")],
)
def test_a_refused_handshake_is_one_line(
    path: str, text: str, echo_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status and text of the server."""
    assert text in fails(capsys, "connect", f"ws://{HERE}:{echo_port}{path}")


async def test_tls_where_there_is_none_is_one_line(echo_port: int) -> None:
    """wss to a server that speaks ws."""
    async with program("connect", f"wss://{HERE}:{echo_port}/") as client:
        status, output, errors = await client.wait()
    assert (status, output, len(errors)) == (1, [], 1)
    assert "TLS" in errors[0]


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhi"],
    ids=["hangs up", "mail", "101 without a token", "200"],
)
async def test_a_server_that_speaks_something_else_is_one_line(answer: bytes) -> None:
    """Whatever it says."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, [listener])
        url = f"ws://{HERE}:{listener.socket.getsockname()[1]}/"
        async with program("connect", url) as client:
            status, output, errors = await client.wait()
        nursery.cancel_scope.cancel()
    assert (status, output, len(errors)) == (1, [], 1)
    assert url in errors[0]
