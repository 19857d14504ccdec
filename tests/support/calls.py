"""The call of a request that nobody sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trioktor import Call, Headers
from trioktor.http.requests import RequestHead

UPGRADE = ((b"host", b"localhost"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"))


def head_of(target: str = "/", headers: Sequence[tuple[bytes, bytes]] = (), *, method: str = "GET") -> RequestHead:
    """The head of a request."""
    return RequestHead(method, target, "1.1", Headers(headers), authority="localhost")


def call_of(
    target: str = "/",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    client: tuple[str, int] | str | None = None,
    scheme: str = "ws",
    path_parameters: Mapping[str, str] | None = None,
) -> Call:
    """The call of a request."""
    return Call(head_of(target, headers), path_parameters=path_parameters or {}, client=client, scheme=scheme)
