"""`trioktor echo`: its routes, its page, and a flag for every setting."""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.support.command import HERE, connected, fails, program
from tests.support.helpers import close
from trioktor import LOOPBACK, Application, Frame, PerMessageDeflate, WebSockets
from trioktor.cli import main
from trioktor.cli.echo import add_echo_arguments, echo_application, number
from trioktor.testing import open_test_host


def parsed(*flags: str) -> argparse.Namespace:
    """What the flags of `echo` say."""
    parser = argparse.ArgumentParser()
    add_echo_arguments(parser)
    where = {"host": "127.0.0.1", "unix": None, "listen_fds": False}
    return parser.parse_args(flags, argparse.Namespace(**where))


def settings(*flags: str) -> WebSockets:
    """What they make of the settings."""
    installed = echo_application(parsed(*flags)).websockets
    assert installed is not None
    return installed


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
    ("flags", "hosts"),
    [
        ([], LOOPBACK),
        (["--host", "::1"], LOOPBACK),
        (["--host", "localhost"], LOOPBACK),
        (["--host", "0.0.0.0"], None),
        (["--host", "example.com"], None),
        (["--unix", "/tmp/x"], None),
        (["--listen-fds"], None),
        (["--served-host", "example.com", "--served-host", "*.example.com"], ("example.com", "*.example.com")),
        (["--served-host", "none"], None),
    ],
)
def test_the_demo_on_the_loopback_answers_to_the_loopback(
    flags: list[str], hosts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is told otherwise."""
    made: list[Application] = []

    def run(app: Application, options: object) -> None:
        made.append(app)

    monkeypatch.setattr("trioktor.cli._run", run)
    monkeypatch.setattr("trioktor.cli.inherited_listeners", list)
    main(["echo", *flags])
    assert made[0].websockets is not None
    assert made[0].websockets.hosts == hosts


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", None), ("None", None), ("NONE", None), ("0", 0), ("17", 17), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0)],
)
def test_a_number_of_a_flag(text: str, value: float | None) -> None:
    """Whole where it is written so: some settings take nothing else."""
    found = number(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["", "soon", "1,5", "--3", "nothing"])
def test_what_is_no_number_of_a_flag(text: str) -> None:
    """As argparse wants to hear it."""
    with pytest.raises(ValueError, match=r"float|int\(\)"):
        number(text)


def test_without_flags_the_settings_are_the_defaults() -> None:
    """But that the demo answers to this machine alone."""
    assert settings() == WebSockets(hosts=LOOPBACK)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (["--timeout", "3"], {"timeout": 3}),
        (["--max-frame-size", "none"], {"max_frame_size": None}),
        (["--ping-period", "0.5"], {"ping_period": 0.5}),
        (["--handler-grace", "none", "--answer-grace", "0"], {"handler_grace": None, "answer_grace": 0}),
        (["--masking"], {"masking": True}),
        (["--origin", "none"], {"origins": None}),
        (["--origin", "https://a", "--origin", "https://b"], {"origins": ["https://a", "https://b"]}),
        (["--subprotocol", "v2", "--subprotocol", "v1"], {"subprotocols": ["v2", "v1"]}),
        (["--subprotocol", "none"], {"subprotocols": ()}),
        (["--served-host", "a"], {"hosts": ["a"]}),
        (["--incoming", "5", "--outgoing", "6"], {"incoming": 5, "outgoing": 6}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_changes_its_own_setting(flags: list[str], changes: dict[str, Any]) -> None:
    """And no other."""
    assert settings(*flags) == attrs.evolve(WebSockets(hosts=LOOPBACK), **changes)


def test_compression_is_a_flag() -> None:
    """An extension is no number."""
    [extension] = settings("--deflate").extensions
    assert isinstance(extension, PerMessageDeflate)


async def test_the_page_runs_its_own_script_and_no_other(autojump_clock: MockClock) -> None:
    """Its policy names what is inside of it, and lets it talk to this server alone."""
    async with open_test_host(echo_application(parsed())) as host:
        answer = await host.get("/")
    html = answer.body.decode()
    policy = answer.headers["content-security-policy"].split("; ")
    for tag in ("script", "style"):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert inside.strip()
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} < set(policy)
    assert answer.headers["referrer-policy"] == "no-referrer"
