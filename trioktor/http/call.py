"""`Call`: the request that opened a conversation (Ktor's `ApplicationCall`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import parse_qsl

from .headers import TOKEN, Headers
from .requests import RequestHead
from .response_headers import ResponseHeaders

_SENT: Final = ResponseHeaders()
_SENT.take()


@final
class Call:
    """What the client asked for, and with what.

    Attributes:
      method: of the request; GET for every WebSocket.
      path: as on the request line, without the query; but each path has one spelling: what may stand in a path by
        itself (pchar of RFC 3986 §3.3) is not escaped, and everything else is.
      route: the pattern of the route that serves it, such as "/rooms/{room}"; the better thing to look at for
        hooks that treat routes differently.
      path_parameters: what the route's placeholders matched, percent-decoded.
      headers: the request's headers; names compare without case.
      client: the peer's host and port, a UNIX socket's path, or None; behind a trusted proxy what that says,
        with port 0 where it names none.
      scheme: "ws" or "wss" ("http" or "https" for a plain request), as this server, or a trusted proxy in
        front of it, sees it.
      protocol: the subprotocol that was chosen, or None.
      principal: who asks, as whoever authenticated it says; None if nobody did (Ktor's `call.principal`).
    """

    __slots__ = (
        "_attributes",
        "_query",
        "_response_headers",
        "client",
        "headers",
        "method",
        "path",
        "path_parameters",
        "principal",
        "protocol",
        "route",
        "scheme",
    )

    def __init__(
        self,
        head: RequestHead,
        *,
        path_parameters: Mapping[str, str],
        client: tuple[str, int] | str | None,
        scheme: str,
        protocol: str | None = None,
        route: str = "",
    ) -> None:
        self.method: str = head.method
        path, _, self._query = head.target.partition("?")
        self.path: str = path
        self.route: str = route
        self.headers: Headers = head.headers
        self.path_parameters: Mapping[str, str] = path_parameters
        self.client: tuple[str, int] | str | None = client
        self.scheme: str = scheme
        self.protocol: str | None = protocol
        self.principal: Any = None
        self._attributes: dict[Any, Any] | None = None
        self._response_headers: ResponseHeaders | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters: every value of each name, in order."""
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(self._query, keep_blank_values=True):
            query.setdefault(name, []).append(value)
        return query

    @property
    def parameters(self) -> dict[str, str]:
        """The path's parameters, and the first value of each of the query's that the path does not name."""
        return {name: values[0] for name, values in self.query.items()} | dict(self.path_parameters)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies the client sent, split as RFC 6265 §5.4 joins them; of two of a name the first.

        What is no pair is left out, and hides no other. Quotes round a value are taken off.
        """
        cookies: dict[str, str] = {}
        for line in self.headers.get_all("cookie"):
            for part in line.split(";"):
                name, equals, value = part.partition("=")
                name, value = name.strip(" \t"), value.strip(" \t")
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                if equals and name:
                    cookies.setdefault(name, value)
        return cookies

    @property
    def offered_protocols(self) -> list[str]:
        """The subprotocols the client offered, in its order, from all header lines; what is no name is left out."""
        return [name for name in self.headers.tokens("sec-websocket-protocol") if TOKEN.fullmatch(name)]

    @property
    def response_headers(self) -> ResponseHeaders:
        """What the answer holds beside the server's own headers; to be added to until it goes out."""
        if self._response_headers is None:
            self._response_headers = ResponseHeaders()
        return self._response_headers

    def take_response_headers(self) -> tuple[tuple[str, str], ...]:
        """All of them, for the answer that goes out now; called by the server."""
        if self._response_headers is None:
            self._response_headers = _SENT
            return ()
        return self._response_headers.take()

    @property
    def attributes(self) -> dict[Any, Any]:
        """A place for the application's own values."""
        if self._attributes is None:
            self._attributes = {}
        return self._attributes

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.path:.200}>"
