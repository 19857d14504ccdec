"""Ktor's WebSockets on Trio's structured concurrency.

What stands here is imported when it is first asked for: pytest imports this package for its fixtures in every
environment that has it, and there it must cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.connect import connect, connect_raw
    from .client.reconnect import is_lasting, reconnecting
    from .client.session import ClientRawWebSocketSession, ClientWebSocketSession
    from .config import CLOSE, SKIP, SUSPEND, ChannelConfig, Overflow, WebSockets
    from .converters import CattrsConverter, ContentConverter, JsonConverter, MsgspecConverter
    from .errors import (
        CannotConnect,
        ChannelOverflow,
        CloseTimeout,
        ConnectionBroken,
        ConnectionClosed,
        ConverterNotFound,
        DeserializationError,
        HandshakeInvalid,
        HandshakeRefused,
        NotSupported,
        PingTimeout,
        WriteTimeout,
    )
    from .http.asking import Handshake
    from .http.call import Call
    from .http.handshake import LOOPBACK, SAME_ORIGIN
    from .http.headers import Headers
    from .http.response_headers import ResponseHeaders
    from .http.responses import Response
    from .protocol.close import CloseCode, CloseReason
    from .protocol.deflate import PerMessageDeflate
    from .protocol.errors import FrameTooBig, ProtocolError, TrioktorError, UnexpectedFrame
    from .protocol.extension_header import ExtensionHeader
    from .protocol.extensions import Extension, ExtensionFactory
    from .protocol.first_byte import FrameType
    from .protocol.frames import Frame
    from .routing.routes import Routes
    from .server.application import Application
    from .server.listeners import inherited_listeners
    from .server.run import run
    from .server.serve import Server, serve
    from .session.raw import RawWebSocketSession
    from .session.rooms import Room, broadcast
    from .session.session import WebSocketSession
    from .session.statistics import SessionStatistics
    from .session.streaming import IncomingMessage, OutgoingMessage
    from .version import __version__ as __version__

__all__ = [
    "CLOSE",
    "LOOPBACK",
    "SAME_ORIGIN",
    "SKIP",
    "SUSPEND",
    "Application",
    "Call",
    "CannotConnect",
    "CattrsConverter",
    "ChannelConfig",
    "ChannelOverflow",
    "ClientRawWebSocketSession",
    "ClientWebSocketSession",
    "CloseCode",
    "CloseReason",
    "CloseTimeout",
    "ConnectionBroken",
    "ConnectionClosed",
    "ContentConverter",
    "ConverterNotFound",
    "DeserializationError",
    "Extension",
    "ExtensionFactory",
    "ExtensionHeader",
    "Frame",
    "FrameTooBig",
    "FrameType",
    "Handshake",
    "HandshakeInvalid",
    "HandshakeRefused",
    "Headers",
    "IncomingMessage",
    "JsonConverter",
    "MsgspecConverter",
    "NotSupported",
    "OutgoingMessage",
    "Overflow",
    "PerMessageDeflate",
    "PingTimeout",
    "ProtocolError",
    "RawWebSocketSession",
    "Response",
    "ResponseHeaders",
    "Room",
    "Routes",
    "Server",
    "SessionStatistics",
    "TrioktorError",
    "UnexpectedFrame",
    "WebSocketSession",
    "WebSockets",
    "WriteTimeout",
    "broadcast",
    "connect",
    "connect_raw",
    "inherited_listeners",
    "is_lasting",
    "reconnecting",
    "run",
    "serve",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "server.application": ("Application",),
    "session.rooms": ("Room", "broadcast"),
    "http.asking": ("Handshake",),
    "http.call": ("Call",),
    "config": ("CLOSE", "ChannelConfig", "Overflow", "SKIP", "SUSPEND", "WebSockets"),
    "converters": ("CattrsConverter", "ContentConverter", "JsonConverter", "MsgspecConverter"),
    "server.listeners": ("inherited_listeners",),
    "client.connect": ("connect", "connect_raw"),
    "client.reconnect": ("is_lasting", "reconnecting"),
    "client.session": ("ClientRawWebSocketSession", "ClientWebSocketSession"),
    "errors": (
        "CannotConnect",
        "ChannelOverflow",
        "CloseTimeout",
        "ConnectionBroken",
        "ConnectionClosed",
        "ConverterNotFound",
        "DeserializationError",
        "HandshakeInvalid",
        "HandshakeRefused",
        "NotSupported",
        "PingTimeout",
        "WriteTimeout",
    ),
    "server.run": ("run",),
    "protocol.close": ("CloseCode", "CloseReason"),
    "protocol.deflate": ("PerMessageDeflate",),
    "protocol.errors": ("FrameTooBig", "ProtocolError", "TrioktorError", "UnexpectedFrame"),
    "protocol.extension_header": ("ExtensionHeader",),
    "protocol.extensions": ("Extension", "ExtensionFactory"),
    "protocol.first_byte": ("FrameType",),
    "protocol.frames": ("Frame",),
    "http.handshake": ("LOOPBACK", "SAME_ORIGIN"),
    "http.headers": ("Headers",),
    "http.responses": ("Response",),
    "http.response_headers": ("ResponseHeaders",),
    "session.raw": ("RawWebSocketSession",),
    "routing.routes": ("Routes",),
    "server.serve": ("Server", "serve"),
    "session.session": ("WebSocketSession",),
    "session.statistics": ("SessionStatistics",),
    "session.streaming": ("IncomingMessage", "OutgoingMessage"),
    "version": ("__version__",),
}
"""Which names stand in which module."""

if not TYPE_CHECKING:  # to a type checker there is no name but those above

    def __getattr__(name: str) -> Any:
        for module, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f".{module}", __name__), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
