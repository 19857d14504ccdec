"""The errors of a conversation that is over.

::

    TrioktorError
    ├── ConnectionClosed       also a trio.BrokenResourceError; sending on, or pinging, what is over
    │   │                      (after our own close also a trio.ClosedResourceError)
    │   └── ConnectionBroken   the end was not clean; raised when reading, too
    │                          its __cause__ is one of those below, a ProtocolError, or the stream's error
    ├── PingTimeout            no Pong in time
    ├── WriteTimeout           the peer took nothing for write_timeout
    ├── CloseTimeout           the peer did not answer our Close
    ├── ChannelOverflow        a bounded channel was full, where so configured
    ├── ConverterNotFound      there is no content converter, and values were to be sent or received
    ├── DeserializationError   a message is not the value that it has to be; `.frame` is the message
    ├── NotSupported           whoever carries the conversation cannot do what was asked for
    ├── CannotConnect          also an OSError; a client found nobody, or lost him before he had answered
    └── HandshakeRefused       the server answered a client's handshake with another status than 101
        └── HandshakeInvalid   or with what is no answer to it

The protocol's own errors are in `trioktor.protocol.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .protocol.errors import TrioktorError

if TYPE_CHECKING:
    from .http.headers import Headers
    from .protocol.close import CloseReason
    from .protocol.frames import Frame


class ConnectionClosed(TrioktorError, trio.BrokenResourceError):
    """The conversation is over.

    `close_reason` says what ended it, `session` whose it was. A handler that lets this error of its own
    session escape has simply ended.
    """

    def __init__(self, close_reason: CloseReason | None, session: trio.abc.Channel[Frame]) -> None:
        super().__init__(f"the conversation is over: {close_reason!r}")
        self.close_reason: CloseReason | None = close_reason
        self.session: trio.abc.Channel[Frame] = session


class ConnectionBroken(ConnectionClosed):
    """The conversation ended without a goodbye of the peer; `__cause__` says how, where that is known."""


@final
class ConnectionClosedHere(ConnectionClosed, trio.ClosedResourceError):
    """We closed the conversation ourselves."""


@final
class PingTimeout(TrioktorError):
    """No Pong came within `timeout`, nor any other byte."""


@final
class WriteTimeout(TrioktorError):
    """The peer took nothing of what we wrote for `write_timeout`."""


@final
class CloseTimeout(TrioktorError):
    """The peer did not answer our Close within `close_timeout`."""


@final
class ChannelOverflow(TrioktorError):
    """A channel was full that is configured to close the conversation rather than wait."""


@final
class ConverterNotFound(TrioktorError):
    """`send_serialized` and `receive_deserialized` need `WebSockets(content_converter=…)`."""


@final
class DeserializationError(TrioktorError):
    """A message is not the value that was asked for; `frame` is the message, `__cause__` what the converter met.

    Escaping the handler of the session that it came from, it closes with 1007 and a line at INFO: the peer's doing.
    """

    def __init__(self, text: str, frame: Frame) -> None:
        super().__init__(f"{text}: {frame!r}")
        self.frame: Frame = frame


@final
class NotSupported(TrioktorError):
    """Whoever carries the conversation, such as an ASGI server, cannot do what was asked for."""


@final
class CannotConnect(TrioktorError, OSError):
    """A client's connection cannot be made; `__cause__` says why.

    `addresses` are those of the host that was tried; () if its name could not be looked up within a second, where
    somebody else was asked to connect, and where one took the connection and the rest failed.
    """

    def __init__(self, text: str, addresses: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.addresses: tuple[str, ...] = addresses


class HandshakeRefused(TrioktorError):
    """A server refused the opening handshake: `status`, `headers` and `body` are its answer.

    `body` holds at most the first 64 KiB.
    """

    def __init__(self, status: int, headers: Headers, body: bytes, text: str | None = None) -> None:
        said = f"the handshake was refused with {status}: {body[:200].decode('latin-1').strip()!r}"
        super().__init__(text if text is not None else said)
        self.status: int = status
        self.headers: Headers = headers
        self.body: bytes = body


@final
class HandshakeInvalid(HandshakeRefused):
    """What came is no answer to the opening handshake, such as a 101 with the wrong `Sec-WebSocket-Accept`.

    `status` is 0 where what came is no HTTP.
    """
