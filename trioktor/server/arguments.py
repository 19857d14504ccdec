"""The arguments of `serve`, checked before anything is opened.

Whoever starts a server sees the error then, at his own line. Found out later, by the first connection, the
same mistake would end a server that others are using.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Any, Final, final

import attrs
import trio

from ..config import _count, _seconds

_MAX_PORT: Final = 65535
_CONTEXT: Final = "write ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) and call its load_cert_chain(certificate, key)"


def _check_port(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_PORT:
        raise ValueError(f"{attribute.name} must be a whole number from 0 to {_MAX_PORT}, not {value!r}")


def _check_host(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, (str, bytes)):
        raise ValueError(f"{attribute.name} must be a name or an address, or None for every interface, not {value!r}")


def _check_path(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, (str, bytes, os.PathLike)) and os.fspath(value)):
        raise ValueError(f"{attribute.name} must be where the UNIX socket is to be, not {value!r}")


def _check_mode(arguments: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise ValueError(f"{attribute.name} must be permissions such as 0o660, not {value!r}")
    if arguments.path is None:
        raise ValueError(f"{attribute.name} goes with path: only a UNIX socket has permissions")


def _check_listeners(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, trio.abc.Listener):
        raise ValueError(f"{attribute.name} must be a list of listeners: write [listener]")
    if value is None:
        return
    if not isinstance(value, Sequence) or not value or not all(isinstance(one, trio.abc.Listener) for one in value):
        raise ValueError(
            f"{attribute.name} must be a list of Trio's listeners, such as trio.open_tcp_listeners makes, not {value!r}"
        )


def _check_context(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, ssl.SSLContext):
        raise TypeError(f"{attribute.name} must be a context, not {value!r}: {_CONTEXT}")
    try:  # what is done for every connection
        value.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{attribute.name} must be a server's context, this one is a client's: {_CONTEXT}") from None


def _check_nursery(_arguments: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, trio.Nursery):
        raise ValueError(f"{attribute.name} must be a nursery that is open, or None, not {value!r}")


@final
@attrs.frozen(kw_only=True)
class Arguments:
    """What `serve` was given.

    Raises:
      ValueError: a value makes no sense; the text names the argument.
      TypeError: `ssl_context` is no context.
    """

    port: int | None = attrs.field(validator=_check_port)
    host: str | None = attrs.field(validator=_check_host)
    path: str | os.PathLike[str] | None = attrs.field(validator=_check_path)
    mode: int | None = attrs.field(validator=_check_mode)
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = attrs.field(validator=_check_listeners)
    backlog: int | None = attrs.field(validator=_count(optional=True))
    ssl_context: ssl.SSLContext | None = attrs.field(validator=_check_context)
    open_timeout: float = attrs.field(validator=_seconds(optional=False))
    response_timeout: float | None = attrs.field(validator=_seconds(optional=True))
    shutdown_grace: float = attrs.field(validator=_seconds(optional=False, zero=True))
    max_head_size: int = attrs.field(validator=_count(optional=False))
    max_headers: int = attrs.field(validator=_count(optional=False))
    max_connections: int | None = attrs.field(validator=_count(optional=True, least=0))
    max_connections_per_address: int | None = attrs.field(validator=_count(optional=True, least=0))
    max_opening: int | None = attrs.field(validator=_count(optional=True))
    handler_nursery: trio.Nursery | None = attrs.field(validator=_check_nursery)
