"""`trioktor connect`: what it says to the server, how it shows what comes, and how it sits at a terminal."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme

from tests.support.command import HERE, PATIENCE, fails, program

APPLICATION: Final = """
import trio
from trioktor import Application, PerMessageDeflate, WebSockets
app = Application()
app.install(WebSockets(subprotocols=["v1"], extensions=[PerMessageDeflate()], origins=None))

@app.websocket("/request")
async def request(session):
    call = session.call
    await session.send(f"{call.headers.get('x-name')} {call.headers.get('origin')} {call.protocol} "
                       f"{len(session.extensions)}")

@app.websocket("/kinds")
async def kinds(session):
    async for frame in session:
        await session.send(f"{frame.type.name} {frame.data!r}")

@app.websocket("/silent")
async def silent(session):
    async for frame in session:
        pass

@app.websocket("/once")
async def once(session):
    await session.send(await session.receive())
    session.terminate()
"""


@asynccontextmanager
async def served(folder: Path, *arguments: str) -> AsyncIterator[int]:
    """The port of a server with this application."""
    (folder / "served.py").write_text(APPLICATION)
    async with program("serve", "served:app", "--port", "0", *arguments, cwd=folder) as server:
        yield await server.port()


async def run(url: str, *arguments: str, typed: str | bytes = "") -> tuple[int, list[str], list[str]]:
    """Run it with this input; status, output and errors."""
    async with program("connect", url, *arguments) as client:
        await client.write(typed)
        await client.close_input()
        return await client.wait()


async def test_what_it_says_of_itself(tmp_path: Path) -> None:
    """Headers, origin, subprotocol, compression; what was chosen is shown."""
    async with served(tmp_path) as port:
        url = f"ws://{HERE}:{port}/request"
        said = ["--header", "X-Name: Ada", "--origin", "https://a.example", "--subprotocol", "v1", "--deflate"]
        status, output, errors = await run(url, *said, "--wait", "5")
        assert (status, output) == (0, ["Ada https://a.example v1 1"])
        assert errors == [f"connected to {url} as v1", "closed: 1000 NORMAL"]
        _, output, _ = await run(url, "--wait", "5")
        assert output == ["None None None 0"]


@pytest.mark.parametrize("typed", ["grün".encode(), b"\xff\xfe\0a"])
async def test_lines_as_binary(typed: bytes, tmp_path: Path) -> None:
    """Byte by byte, whatever they are."""
    async with served(tmp_path) as port:
        _, output, _ = await run(f"ws://{HERE}:{port}/kinds", "--binary", typed=typed + b"\n")
    assert output == [f"BINARY {typed!r}"]


async def test_it_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    """`--wait` is for servers that speak in their own time."""
    async with served(tmp_path) as port:
        began = time.monotonic()
        status, output, _ = await run(f"ws://{HERE}:{port}/silent", "--wait", "0.5", typed="x\n")
    assert (status, output) == (0, [])
    assert time.monotonic() - began >= 0.5


async def test_pings(tmp_path: Path) -> None:
    """Each with the time it took."""
    async with served(tmp_path) as port, program("connect", f"ws://{HERE}:{port}/silent", "--ping", "0.01") as client:
        errors = b""
        with trio.fail_after(PATIENCE):
            while errors.count(b"pong: ") < 2:
                errors += await client.errors.receive_some()
        await client.close_input()
        status, _, _ = await client.wait()
    assert status == 0
    assert re.search(rb"^pong: \d+\.\d\d ms$", errors, re.MULTILINE)


async def test_it_connects_again(tmp_path: Path) -> None:
    """Lines that come meanwhile go to the next connection; it ends when all is said."""
    async with served(tmp_path) as port, program("connect", f"ws://{HERE}:{port}/once", "--reconnect") as client:
        errors = b""
        for number in range(3):
            await client.write(f"{number}\n")
            assert await client.line() == str(number)
            with trio.fail_after(PATIENCE):
                while errors.count(b"closed: 1006 CLOSED_ABNORMALLY") <= number:
                    errors += await client.errors.receive_some()
        await client.close_input()
        status, output, _ = await client.wait()
    assert (status, output) == (0, [])


async def test_it_says_why_it_tries_again() -> None:
    """Each time, until the end."""
    with socket.socket() as nobody:
        nobody.bind((HERE, 0))
        url = f"ws://{HERE}:{nobody.getsockname()[1]}/"
        async with program("connect", url, "--reconnect") as client:
            with trio.fail_after(PATIENCE):
                assert b"refused; trying again" in await client.errors.receive_some()
            client.signal(signal.SIGINT)
            status, _, _ = await client.wait()
    assert status == 130


async def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """`--insecure` takes it; otherwise it says why not."""
    certificate = trustme.CA().issue_cert("other.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    async with served(tmp_path, "--certificate", str(tmp_path / "server.pem")) as port:
        url = f"wss://{HERE}:{port}/kinds"
        assert await run(url, "--insecure", typed="x\n") == (0, ["TEXT b'x'"], [f"connected to {url}"])
        status, _, errors = await run(url)
    assert status == 1
    assert "TLS" in errors[0]
    assert "certificate" in errors[0]


async def test_ctrl_c_while_it_connects() -> None:
    """Status 130, and nothing else."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    url = f"ws://{HERE}:{listener.socket.getsockname()[1]}/"
    async with listener, program("connect", url) as client, await listener.accept():
        client.signal(signal.SIGINT)
        assert await client.wait() == (130, [], [])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--header", "nothing"], "NAME: VALUE"),
        (["--header", "Upgrade: x"], "Upgrade"),
        (["--header", "X: \x1b[31m"], "control character"),
        (["--subprotocol", "a b"], "subprotocols"),
        (["--origin", "a\nb"], "control character"),
        (["--proxy", "ftp://x"], "proxy"),
        (["--ping", "-1"], "--ping"),
        (["--wait", "nan"], "--wait"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anybody is called; with nothing in it that could steer a terminal."""
    line = fails(capsys, "connect", "ws://localhost:1/", *arguments)
    assert text in line
    assert line.rstrip("\n").isprintable()


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the server's nor the proxy's."""
    assert "secret" not in fails(capsys, "connect", "ws://ada:secret@127.0.0.1:1/")
    assert "secret" not in fails(capsys, "connect", "ws://a:1/", "--proxy", "http://ada:secret@127.0.0.1:1")


async def test_connect_sends_piped_lines_and_prints_the_answers(echo_port: int) -> None:
    """One line each, non-ASCII too, and an end with status 0 when all is said and answered."""
    async with program("connect", f"ws://{HERE}:{echo_port}/actor") as client:
        await client.write("hello\nGrüße, 世界\n\nlast without a line end")
        await client.close_input()
        status, output, errors = await client.wait()
    assert status == 0
    assert output == ["YOU SAID: hello", "YOU SAID: Grüße, 世界", "YOU SAID: ", "YOU SAID: last without a line end"]
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
