"""The sessions of a client: those of a handler, and the server's answer."""

from __future__ import annotations

from typing import final

from ..engine.connection import Connection
from ..http.asking import Handshake
from ..http.call import Call
from ..session.raw import RawWebSocketSession
from ..session.session import WebSocketSession
from .upgrade import Opened


def _call(opened: Opened) -> Call:
    scheme = "wss" if opened.address.is_secure else "ws"
    return Call(opened.head, path_parameters={}, client=None, scheme=scheme, protocol=opened.protocol)


@final
class ClientWebSocketSession(WebSocketSession):
    """A client's end of a conversation (Ktor's `DefaultClientWebSocketSession`); made by `connect`.

    Everything that a handler's session has, with a client's rules: what it sends is masked, with a fresh key for each
    frame, and a masked frame from the server is a violation. `call` is the request that was sent; `application` is
    None.

    Attributes:
      response: the server's 101, with its headers.
    """

    __slots__ = ("response",)

    def __init__(self, connection: Connection, opened: Opened) -> None:
        super().__init__(connection, _call(opened), None)
        self._may_write_through = True  # nobody else is going to say something first
        self.response: Handshake = opened.response

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose, or None."""
        return self.call.protocol


@final
class ClientRawWebSocketSession(RawWebSocketSession):
    """A client's end of a conversation, frame by frame; made by `connect_raw`.

    Attributes:
      response: the server's 101, with its headers.
    """

    __slots__ = ("response",)

    def __init__(self, connection: Connection, opened: Opened) -> None:
        super().__init__(connection, _call(opened), None)
        self.response: Handshake = opened.response

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose, or None."""
        return self.call.protocol
