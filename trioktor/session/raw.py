"""`RawWebSocketSession`: what a handler sees of its connection, in frames."""

from __future__ import annotations

from .base import BaseSession


class RawWebSocketSession(BaseSession):
    """One WebSocket conversation, frame by frame (Ktor's `WebSocketServerSession` of `webSocketRaw`).

    Handed to handlers of raw routes, not to be constructed. `incoming` holds every frame as it came:
    fragments, Pings, Pongs, and at last the Close. Nothing is answered by itself and nothing joined; text is
    not checked before `frame.text` is asked for. What breaks the rules of frames still ends the conversation
    with its code.

    What is sent goes out in the order in which it was sent, control frames included; `close()`, or a Close
    that is sent, is the last of it. When the handler returns, what is queued goes out and the connection
    ends; no Close is added. After the end of the peer's input there is `close_timeout` for that.
    """

    __slots__ = ()
