"""The client's side of HTTP: one request, and its answer from bytes. h11 reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs
import h11

from .headers import Headers

MAX_BODY: Final = 65536
"""Bytes of an answer's body that are kept; what follows is not waited for."""
_MAX_HEAD: Final = 65536
"""Bytes of one answer's head."""
_MAX_INFORMATIONAL: Final = 16
"""Answers of 1xx that may stand before the one that counts."""


class BadAnswer(Exception):
    """What came is no answer in HTTP/1.1, or not all of it came: `is_end`."""

    def __init__(self, text: str, *, is_end: bool = False) -> None:
        super().__init__(text)
        self.is_end: bool = is_end


@final
@attrs.frozen
class Handshake:
    """A server's answer to an opening handshake, or to a plain request.

    Attributes:
      body: of at most 64 KiB; empty behind a 101.
    """

    status: int
    headers: Headers
    body: bytes = b""


@final
class Exchange:
    """One request and its answer.

    Args:
      host: of the Host header, unless the headers have one.

    Attributes:
      request: the bytes to send.
      headers: those of the request.
    """

    def __init__(self, method: str, target: str, host: str, headers: Sequence[tuple[str, str]]) -> None:
        pairs = list(headers)
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs.insert(0, ("Host", host))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        self.headers: Headers = Headers([(name.lower(), value) for name, value in encoded])
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self.request: bytes = self._http.send(h11.Request(method=method, target=target, headers=encoded)) or b""
        self._http.send(h11.EndOfMessage())
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._informational = 0

    def feed(self, data: bytes) -> tuple[Handshake, bytes] | None:
        """Add bytes, b"" at the end of the stream; returns the answer and what follows it, once it is complete.

        Behind an answer that does not end HTTP (101, or 2xx to CONNECT) nothing follows.

        Raises:
          BadAnswer: there is none.
        """
        try:
            self._http.receive_data(data)
            return self._go_on()
        except h11.RemoteProtocolError as error:
            if self.is_in_body:  # it breaks off: so be it
                return self.incomplete(), b""
            if not data:
                raise BadAnswer("the connection was closed before the answer", is_end=True) from None
            raise BadAnswer(str(error)) from None

    @property
    def is_in_body(self) -> bool:
        """Whether the head has come, of an answer that has a body."""
        return self._head is not None

    def incomplete(self) -> Handshake:
        """The answer, with what has come of its body."""
        assert self._head is not None
        return self._answer(self._head)

    def _go_on(self) -> tuple[Handshake, bytes] | None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    if event.http_version != b"1.1":  # RFC 6455 §4.1, RFC 9110 §7.8
                        raise BadAnswer("a 101 in another version of HTTP than 1.1")
                    return self._answer(event), self._http.trailing_data[0]
                self._informational += 1
                if self._informational > _MAX_INFORMATIONAL:
                    raise BadAnswer("too many answers of 1xx")
            elif isinstance(event, h11.Response):
                if self._http.their_state is h11.SWITCHED_PROTOCOL:  # 2xx to CONNECT
                    return self._answer(event), self._http.trailing_data[0]
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) >= MAX_BODY:
                    return self.incomplete(), b""
            else:
                assert isinstance(event, h11.EndOfMessage)
                return self.incomplete(), b""

    def _answer(self, head: h11.Response | h11.InformationalResponse) -> Handshake:
        pairs = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        return Handshake(head.status_code, Headers(pairs), bytes(self._body[:MAX_BODY]))
