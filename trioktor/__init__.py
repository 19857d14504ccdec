"""Ktor's server WebSockets on Trio's structured concurrency."""

from .application import Application
from .broadcasting import Room, broadcast
from .call import Call
from .config import CLOSE, SKIP, SUSPEND, ChannelConfig, Overflow, WebSockets
from .converters import CattrsConverter, ContentConverter, JsonConverter, MsgspecConverter
from .engine.listeners import inherited_listeners
from .errors import (
    ChannelOverflow,
    CloseTimeout,
    ConnectionBroken,
    ConnectionClosed,
    ConverterNotFound,
    DeserializationError,
    HandshakeRefused,
    PingTimeout,
    WriteTimeout,
)
from .program import run
from .protocol.close import CloseCode, CloseReason
from .protocol.deflate import PerMessageDeflate
from .protocol.errors import FrameTooBig, ProtocolError, TrioktorError, UnexpectedFrame
from .protocol.extensions import Extension, ExtensionFactory, ExtensionHeader
from .protocol.frames import Frame, FrameType
from .protocol.handshake import LOOPBACK, SAME_ORIGIN
from .protocol.http import Headers, Response
from .raw_session import RawWebSocketSession
from .routes import Routes
from .server import Server, serve
from .session import WebSocketSession
from .statistics import SessionStatistics
from .streaming import IncomingMessage, OutgoingMessage

__version__ = "0.1.0"

__all__ = [
    "CLOSE",
    "LOOPBACK",
    "SAME_ORIGIN",
    "SKIP",
    "SUSPEND",
    "Application",
    "Call",
    "CattrsConverter",
    "ChannelConfig",
    "ChannelOverflow",
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
    "HandshakeRefused",
    "Headers",
    "IncomingMessage",
    "JsonConverter",
    "MsgspecConverter",
    "OutgoingMessage",
    "Overflow",
    "PerMessageDeflate",
    "PingTimeout",
    "ProtocolError",
    "RawWebSocketSession",
    "Response",
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
    "inherited_listeners",
    "run",
    "serve",
]
