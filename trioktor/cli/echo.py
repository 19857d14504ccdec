"""The echo demo: `/` and `/echo` send back what they get, `/actor` is the actor of Ktor's page."""

from __future__ import annotations

import argparse
import base64
import hashlib
import ipaddress
from importlib import resources
from typing import Any

import attrs

from ..config import WebSockets
from ..http.call import Call
from ..http.handshake import LOOPBACK
from ..http.responses import Response
from ..protocol.close import CloseReason
from ..protocol.deflate import PerMessageDeflate
from ..protocol.frames import Frame
from ..server.application import Application
from ..session.session import WebSocketSession

_LISTS = {"origins": "--origin", "hosts": "--served-host", "subprotocols": "--subprotocol"}
"""Settings that are lists, and their flags; `--host` says where to listen."""
_HELP = {
    "origins": "whose pages are let in; may be repeated (default: the same origin)",
    "hosts": "which host it answers to; may be repeated (default: on the loopback its own names, else any)",
    "subprotocols": "which it speaks, the best first; may be repeated",
}
_NO_FLAG = ("extensions", "content_converter")


def number(text: str) -> float | int | None:
    """A number, or None for "none"; its name is what argparse shows."""
    if text.lower() == "none":
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)


def add_echo_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting of `WebSockets` that fits one."""
    group = parser.add_argument_group("settings of WebSockets", "none turns off what can be turned off")
    group.add_argument("--deflate", action="store_true", help="permessage-deflate, where the client can")
    for field in attrs.fields(WebSockets):
        flag = "--" + field.name.replace("_", "-")
        if field.name in _LISTS:
            metavar = field.name[:-1].upper()
            flag, text = _LISTS[field.name], _HELP[field.name]
            group.add_argument(flag, dest=field.name, action="append", metavar=metavar, help=text)
        elif isinstance(field.default, bool):
            group.add_argument(flag, action="store_true", help="mask what is sent, as clients do")
        elif field.name not in _NO_FLAG:
            group.add_argument(flag, type=number, default=field.default, metavar="N", help="(default: %(default)s)")


def _settings(arguments: argparse.Namespace) -> WebSockets:
    values: dict[str, Any] = {}
    for field in attrs.fields(WebSockets):
        value = getattr(arguments, field.name, None)
        if field.name in _LISTS:
            if value is not None:
                off = () if field.name == "subprotocols" else None
                values[field.name] = off if value == ["none"] else value
        elif field.name not in _NO_FLAG:
            values[field.name] = value
    listens_elsewhere = arguments.unix is not None or arguments.listen_fds or not _is_loopback(arguments.host)
    if arguments.hosts is None and not listens_elsewhere:
        values["hosts"] = LOOPBACK  # a page could have its name point here
    if arguments.deflate:
        values["extensions"] = [PerMessageDeflate()]
    return WebSockets(**values)


def _page_headers(html: str) -> dict[str, str]:
    """The page runs its own script, has its own style, talks to this server, and does nothing else."""
    policy = [
        "default-src 'none'",
        *(f"{kind}-src '{_hash(html, kind)}'" for kind in ("script", "style")),
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


def _hash(html: str, tag: str) -> str:
    inside = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode("ascii")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def echo_application(arguments: argparse.Namespace) -> Application:
    """The demo, with the settings from the command line.

    Raises:
      ValueError: a setting makes no sense.
    """
    app = Application()
    app.install(_settings(arguments))

    @app.websocket("/")
    @app.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    @app.websocket("/actor")
    async def actor(session: WebSocketSession) -> None:
        async for frame in session.frames(Frame.Text):
            await session.send(f"YOU SAID: {frame.text}")
            if frame.text.lower() == "bye":
                session.close(CloseReason(CloseReason.Codes.NORMAL, "Client said BYE"))

    html = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    page_itself = Response(html, content_type="text/html; charset=utf-8", headers=_page_headers(html))

    @app.get("/")
    async def page(call: Call) -> Response:
        return page_itself

    return app
