"""The `trioktor` command, as a person runs it: in processes of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from trioktor.cli.connect import printable

COMMAND = [sys.executable, "-m", "trioktor"]
PATIENCE = 20


@contextmanager
def server(*arguments: str, cwd: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port: the process, and the address that it prints."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    ) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"listening on (\S+)\n", process.stdout.readline())
            assert found, process.stderr and process.stderr.read()
            yield process, found[1]
        finally:
            process.kill()


def connect(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    """The client, with piped input, run to its end."""
    return subprocess.run(
        [*COMMAND, "connect", *arguments], input=lines, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command that is expected to end by itself."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, cwd=cwd, check=False
    )


def stop(process: subprocess.Popen[str], *signals: signal.Signals) -> tuple[int, str, str]:
    """Send signals, and wait for the end: status, output, errors."""
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_echo_talks_to_connect_and_tells_of_every_connection() -> None:
    """Piped input works; a line when a connection opens and one when it closes, with code, frames and bytes."""
    with server("echo", "--port", "0") as (process, address):
        talk = connect(f"{address}/actor", lines="hello\nbye\n")
        assert (0, "YOU SAID: hello\nYOU SAID: bye\n") == (talk.returncode, talk.stdout)
        assert "closed: 1000 Client said BYE" in talk.stderr
        echo = connect(f"{address}/echo", lines="grüße\n")
        assert (0, "grüße\n") == (echo.returncode, echo.stdout)
        with urllib.request.urlopen(address.replace("ws:", "http:"), timeout=PATIENCE) as page:
            assert b"trioktor echo" in page.read()
        status, out, err = stop(process, signal.SIGINT)
    assert (0, "") == (status, err)
    opened, closed, *_ = out.splitlines()
    assert re.fullmatch(r"opened /actor for \('127\.0\.0\.1', \d+\)", opened)
    assert re.search(r"CloseReason\(NORMAL, 'Client said BYE'\), in 3 frames \d+ bytes, out 3 frames \d+ bytes", closed)


def test_a_server_that_is_stopped_says_so_to_its_clients() -> None:
    """The first signal closes with 1001 and ends with 0."""
    with server("echo", "--port", "0", "--quiet") as (process, address):
        client = subprocess.Popen(
            [*COMMAND, "connect", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("hello\n")
        client.stdin.flush()
        assert "hello\n" == client.stdout.readline()
        status, out, err = stop(process, signal.SIGTERM)
        assert (0, "", "") == (status, out, err)
        _, errors = client.communicate(timeout=PATIENCE)
        assert 0 == client.returncode
        assert "closed: 1001" in errors


STUBBORN = """
import trio
from trioktor import Application, WebSockets
app = Application()
app.install(WebSockets())
@app.websocket("/")
async def stay(session):
    await session.send("here")
    with trio.CancelScope(shield=True):
        await trio.sleep(30)
not_an_app = 1
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """With 130 or 143, even while a handler resists; the client hears of it."""
    (tmp_path / "stubborn.py").write_text(STUBBORN.replace("sleep(30)", "sleep(3)"))
    with server("serve", "stubborn:app", "--port", "0", cwd=tmp_path) as (process, address):
        client = subprocess.Popen(
            [*COMMAND, "connect", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        assert client.stderr is not None
        assert "here\n" == client.stdout.readline()
        process.send_signal(number)
        while "closed: 1001" not in (line := client.stderr.readline()):
            assert line
        assert status == stop(process, number)[0]
        client.communicate(timeout=PATIENCE)


def test_ctrl_c_ends_the_client_cleanly() -> None:
    """Status 130 and no traceback."""
    with server("echo", "--port", "0") as (_, address):
        client = subprocess.Popen(
            [*COMMAND, "connect", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stderr is not None
        assert f"connected to {address}\n" == client.stderr.readline()
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("hello\n")
        client.stdin.flush()
        assert "hello\n" == client.stdout.readline()
        status, _, errors = stop(client, signal.SIGINT)
    assert 130 == status
    assert "Traceback" not in errors


def test_tls_is_spoken_with_a_certificate(tmp_path: Path) -> None:
    """wss works for who trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = ("--certificate", str(tmp_path / "certificate.pem"), "--key", str(tmp_path / "key.pem"))
    with server("echo", "--port", "0", *files) as (_, address):
        assert address.startswith("wss://")
        talk = connect(address, "--ca", str(tmp_path / "ca.pem"), lines="secret\n")
        assert (0, "secret\n") == (talk.returncode, talk.stdout)


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    """And its address is the path."""
    with server("echo", "--unix", str(tmp_path / "socket")) as (process, address):
        assert str(tmp_path / "socket") == address
        assert 0 == stop(process, signal.SIGINT)[0]
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["connect", "ws://127.0.0.1:1/"], 1, "cannot connect to ws://127.0.0.1:1/"),
        (["connect", "http://127.0.0.1/"], 1, "not a WebSocket address"),
        (["connect", "ws://127.0.0.1:0/"], 1, "not a WebSocket address"),
        (["connect", "ws://127.0.0.1:x/"], 1, "not a WebSocket address"),
        (["echo", "--ping-period", "-1"], 1, "ping_period must be more than 0 seconds"),
        (["echo", "--key", "x"], 1, "--key goes with --certificate"),
        (["echo", "--certificate", "nowhere.pem"], 1, "No such file or directory"),
        (["echo", "--ping-period", "soon"], 2, "invalid number value: 'soon'"),
        (["serve", "stubborn"], 1, "write MODULE:NAME"),
        (["serve", "nowhere:app"], 1, "there is no module 'nowhere' here"),
        (["serve", "stubborn:nothing"], 1, "expected an Application, found nothing"),
        (["serve", "stubborn:not_an_app"], 1, "expected an Application, found a int"),
        ([], 2, "the following arguments are required: COMMAND"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, arguments: list[str], status: int, text: str) -> None:
    """On standard error, without a traceback."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    result = run(*arguments, cwd=tmp_path)
    assert status == result.returncode
    assert text in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_one_clear_line() -> None:
    """It names address and reason."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run("echo", "--port", port)
    assert 1 == result.returncode
    assert f"trioktor echo: cannot listen on 127.0.0.1:{port}: Address already in use [EADDRINUSE]\n" == result.stderr


def test_a_path_that_is_not_served_is_one_clear_line() -> None:
    """With the server's answer."""
    with server("echo", "--port", "0") as (_, address):
        result = connect(f"{address}/nowhere")
    assert 1 == result.returncode
    assert f"trioktor connect: {address}/nowhere answered 404: there is nothing at this path\n" == result.stderr


def test_settings_have_flags(tmp_path: Path) -> None:
    """Limits, lists and switches reach the server."""
    flags = ("--max-frame-size", "10", "--subprotocol", "chat", "--origin", "none", "--write-timeout", "none")
    with server("echo", "--port", "0", *flags) as (_, address):
        assert "short\n" == connect(address, "--subprotocol", "chat", lines="short\n").stdout
        result = connect(address, lines="much too long\n")
    assert 1 == result.returncode
    assert "closed: 1009" in result.stderr


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    """Control characters are shown, not obeyed."""
    assert r"a\x1b[31mb\x07\n" + "\té" == printable("a\x1b[31mb\x07\n\té")
