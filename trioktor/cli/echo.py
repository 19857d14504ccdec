"""The echo demo: `/` and `/echo` send back what they get, `/actor` is the actor of Ktor's page."""

from __future__ import annotations

import argparse
from importlib import resources
from typing import Any

import attrs

from ..application import Application
from ..call import Call
from ..config import WebSockets
from ..protocol.close import CloseReason
from ..protocol.deflate import PerMessageDeflate
from ..protocol.frames import Frame
from ..protocol.http import Response
from ..session import WebSocketSession

_LISTS = ("origins", "subprotocols")
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
            singular = flag.removesuffix("s")
            group.add_argument(singular, dest=field.name, action="append", metavar=field.name[:-1].upper())
        elif isinstance(field.default, bool):
            group.add_argument(flag, action="store_true")
        elif field.name not in _NO_FLAG:
            group.add_argument(flag, type=number, default=field.default, metavar="N", help="(default: %(default)s)")


def _settings(arguments: argparse.Namespace) -> WebSockets:
    values: dict[str, Any] = {}
    for field in attrs.fields(WebSockets):
        value = getattr(arguments, field.name, None)
        if field.name in _LISTS:
            if value is not None:
                values[field.name] = None if value == ["none"] else value
        elif field.name not in _NO_FLAG:
            values[field.name] = value
    if arguments.deflate:
        values["extensions"] = [PerMessageDeflate()]
    return WebSockets(**values)


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

    @app.get("/")
    async def page(call: Call) -> Response:
        html = resources.files(__package__).joinpath("page.html").read_bytes()
        return Response(html, content_type="text/html; charset=utf-8")

    return app
