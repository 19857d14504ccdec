"""Ktor's server WebSockets on Trio's structured concurrency."""

from .application import Application, Routes
from .call import Call
from .config import WebSockets
from .errors import (
    ChannelOverflow,
    CloseTimeout,
    ConnectionBroken,
    ConnectionClosed,
    HandshakeRefused,
    PingTimeout,
    WriteTimeout,
)
from .protocol.close import CloseCode, CloseReason
from .protocol.errors import FrameTooBig, ProtocolError, TrioktorError, UnexpectedFrame
from .protocol.frames import Frame, FrameType
from .protocol.handshake import SAME_ORIGIN
from .protocol.http import Headers, Response
from .server import Server, run, serve
from .session import WebSocketSession

__version__ = "0.1.0"

__all__ = [
    "SAME_ORIGIN",
    "Application",
    "Call",
    "ChannelOverflow",
    "CloseCode",
    "CloseReason",
    "CloseTimeout",
    "ConnectionBroken",
    "ConnectionClosed",
    "Frame",
    "FrameTooBig",
    "FrameType",
    "HandshakeRefused",
    "Headers",
    "PingTimeout",
    "ProtocolError",
    "Response",
    "Routes",
    "Server",
    "TrioktorError",
    "UnexpectedFrame",
    "WebSocketSession",
    "WebSockets",
    "WriteTimeout",
    "run",
    "serve",
]
