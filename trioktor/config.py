"""`WebSockets`: what an application installs, and every setting's meaning and reason.

Frozen, so that a running server cannot be half of one configuration and half of another. All times are
seconds and None is off. Source: Ktor's `install(WebSockets) { … }`.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, TypeVar, final

import attrs

from .http.handshake import SAME_ORIGIN, HostPolicy, Hosts, OriginPolicy, Origins
from .http.headers import TOKEN
from .protocol.extensions import ExtensionFactory
from .protocol.negotiation import check_factories

if TYPE_CHECKING:
    from .converters import ContentConverter
    from .http.call import Call

T = TypeVar("T")
Subprotocols: TypeAlias = "str | Sequence[str] | Callable[[Call], str | None]"
_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _seconds(*, optional: bool, zero: bool = False) -> _Validator:
    def check(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{attribute.name} must be a number of seconds{' or None' * optional}, not {value!r}")
        if value != value or value < 0 or (value == 0 and not zero):
            off = " (None is off)" * optional
            least = "at least" if zero else "more than"
            raise ValueError(f"{attribute.name} must be {least} 0 seconds{off}, not {value!r}")
        if sys.float_info.max < value < math.inf:  # an int: no clock goes so far
            raise ValueError(f"{attribute.name} is too long a time: write math.inf, or None where that is for ever")

    return check


def _count(*, optional: bool, least: int = 1) -> _Validator:
    def check(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{attribute.name} must be a whole number of at least {least}{' or None' * optional}, not {value!r}"
            )

    return check


def _check_bool(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False, not {value!r}")


_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#@\s]+")
"""Scheme, host and port of RFC 6454 §6.2; a star may stand in the host."""


def _check_origins(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None or isinstance(value, OriginPolicy):
        return
    if not isinstance(value, tuple) or not all(isinstance(origin, (str, re.Pattern)) for origin in value):
        raise ValueError(
            f"{attribute.name} must be SAME_ORIGIN, None (anyone), or a list of origins such as"
            f" 'https://example.com' or patterns, not {value!r}"
        )
    for origin in value:
        if isinstance(origin, str) and origin != "null" and not _ORIGIN.fullmatch(origin):
            hint = (
                "None lets anyone in" if origin == "*" else f"write 'https://{origin.strip('/').rpartition('//')[2]}'"
            )
            raise ValueError(
                f"{attribute.name}: no page has the origin {origin!r}; it is a scheme and a host without a path: {hint}"
            )


_NAME: Final = re.compile(r"[\w*](?:[\w*.-]*[\w*])?|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?", re.ASCII)
"""A name or an address, with stars; an IPv6 address may have its brackets."""


def _check_hosts(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None or isinstance(value, HostPolicy):
        return
    if not isinstance(value, tuple) or not all(isinstance(host, (str, re.Pattern)) for host in value):
        raise ValueError(
            f"{attribute.name} must be None (any), LOOPBACK, or a list of names such as 'example.com' or patterns,"
            f" not {value!r}"
        )
    for host in value:
        if isinstance(host, str) and not _NAME.fullmatch(host):
            raise ValueError(f"{attribute.name}: {host!r} is no name or address: leave out scheme, port and path")


def _check_subprotocols(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if inspect.iscoroutinefunction(value):
        raise ValueError(f"{attribute.name} must be chosen by a plain function: leave the async out of {value!r}")
    if callable(value):
        return
    if not isinstance(value, tuple) or not all(isinstance(name, str) and TOKEN.fullmatch(name) for name in value):
        raise ValueError(
            f"{attribute.name} must be a subprotocol's name, a list of them (RFC 9110 tokens), or a function"
            f" of the call, not {value!r}"
        )


def _as_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _as_tuple(value)


def _check_extensions(_config: object, _attribute: object, value: object) -> None:
    check_factories(value)


def _as_tuple(value: Any) -> Any:
    return (
        value
        if value is None or isinstance(value, (str, OriginPolicy)) or not isinstance(value, Sequence)
        else tuple(value)
    )


def _check_converter(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    wanted = ("serialize", "deserialize", "is_applicable")
    if value is not None and not all(callable(getattr(value, name, None)) for name in wanted):
        raise ValueError(f"{attribute.name} must be a ContentConverter such as JsonConverter(), not {value!r}")
    if isinstance(value, type):
        raise ValueError(f"{attribute.name} must be a converter, not a class: write {value.__name__}()")


@final
class Overflow(Enum):
    """What happens when a queue is full."""

    SUSPEND = "wait until there is room"
    CLOSE = "end the conversation"
    SKIP = "leave this session out"


SUSPEND: Final = Overflow.SUSPEND
CLOSE: Final = Overflow.CLOSE
SKIP: Final = Overflow.SKIP


def _check_overflow(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in (SUSPEND, CLOSE):
        raise ValueError(f"{attribute.name} must be SUSPEND or CLOSE, not {value!r}")


@final
@attrs.frozen
class ChannelConfig:
    """A session's queue in one direction (Ktor's `channels { incoming = bounded(…) }`).

    Raises:
      ValueError: a value makes no sense; the text names the argument.
    """

    capacity: int = attrs.field(default=64, validator=_count(optional=False))
    """Frames that may wait."""

    on_overflow: Overflow = attrs.field(default=SUSPEND, validator=_check_overflow)
    """SUSPEND waits for room, and passes the back-pressure on. CLOSE ends the conversation: 1008 if the peer
    sent more than fits, 1013 if we did; what was accepted before is not lost. What waits at the channel `outgoing`
    itself is seen when the peer takes something: `send` sees it at once."""


@functools.cache  # connections share them
def channel_config(value: int | ChannelConfig) -> ChannelConfig:
    """A queue's configuration, which may be given as a number."""
    return value if isinstance(value, ChannelConfig) else ChannelConfig(value)


def _check_channel(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, ChannelConfig)) or (isinstance(value, int) and value < 1):
        raise ValueError(f"{attribute.name} must be a whole number of at least 1 or a ChannelConfig, not {value!r}")


@final
@attrs.frozen(kw_only=True)
class WebSockets:
    """The settings of an application's WebSockets; each may be overridden for a route.

    Raises:
      ValueError: a value makes no sense; the text names the argument.
    """

    ping_period: float | None = attrs.field(default=None, validator=_seconds(optional=True))
    """Seconds between Pings; off by default, as in Ktor. Recommended for servers on the open net."""

    timeout: float = attrs.field(default=15, validator=_seconds(optional=False))
    """Seconds for sending a Ping and receiving its Pong; any byte from the peer starts them anew."""

    max_frame_size: int | None = attrs.field(default=1 << 20, validator=_count(optional=True))
    """Bytes of a frame and of a message. Ktor has no limit: ten bytes of header could cost 2 GiB there."""

    masking: bool = attrs.field(default=False, validator=_check_bool)
    """Mask what the server sends, as Ktor can; against RFC 6455 §5.1, and browsers hang up on it."""

    extensions: Sequence[ExtensionFactory] = attrs.field(default=(), converter=_as_tuple, validator=_check_extensions)
    """Such as `[PerMessageDeflate()]`; messages pass them in this order on their way out."""

    origins: Origins = attrs.field(default=SAME_ORIGIN, converter=_as_tuple, validator=_check_origins)
    """Whose pages may connect: same origin, a list of names and patterns, or None for anyone."""

    hosts: Hosts = attrs.field(default=None, converter=_as_tuple, validator=_check_hosts)
    """Names and addresses that are answered to, such as "example.com" (a star stands for labels), or `LOOPBACK`; None
    is any. Guards what only this machine or network should reach against pages whose name turns out to point there
    (DNS rebinding), which `SAME_ORIGIN` lets in. The installed value holds for plain requests, too."""

    subprotocols: Subprotocols = attrs.field(default=(), converter=_as_names, validator=_check_subprotocols)
    """Subprotocols by preference, of which the first that the client offers is chosen; or one name; or a
    function of the call that returns one of `call.offered_protocols`, or None."""

    max_fragments: int | None = attrs.field(default=4096, validator=_count(optional=True))
    """Fragments of a message beyond one for every 64 bytes; bounds what empty fragments can cost."""

    incoming: int | ChannelConfig = attrs.field(default=64, validator=_check_channel)
    """Messages that wait for the handler before the reader stops: a number, or a `ChannelConfig`.
    16 measured far slower under load."""

    outgoing: int | ChannelConfig = attrs.field(default=64, validator=_check_channel)
    """Frames that wait for the network before `send` waits: a number, or a `ChannelConfig`."""

    close_timeout: float = attrs.field(default=10, validator=_seconds(optional=False))
    """Seconds for the peer to answer our Close, once that is with the operating system."""

    write_timeout: float | None = attrs.field(default=30, validator=_seconds(optional=True))
    """Seconds in which the peer must take something of what we write."""

    answer_grace: float = attrs.field(default=0.5, validator=_seconds(optional=False, zero=True))
    """Seconds a handler may go on answering after the peer's Close or violation, before ours goes out. None if there is
    nothing to answer: nothing came before, or `incoming` is closed; and only what is left of it since the first message
    came, if the handler has never received."""

    handler_grace: float | None = attrs.field(default=3, validator=_seconds(optional=True))
    """Seconds after the end in which a handler must return or take a frame, or it is cancelled."""

    content_converter: ContentConverter | None = attrs.field(default=None, validator=_check_converter)
    """Turns values into messages and back, for `send_serialized` and `receive_deserialized`."""

    max_queued_bytes: int = attrs.field(default=1 << 20, validator=_count(optional=False))
    """Bytes that may wait in either queue: beyond, the reader stops, in the middle of a message if need be, or `send`
    waits. One message always passes, however long. What goes into `outgoing` past `send` is not counted."""


@final
@attrs.frozen(kw_only=True)
class Supports:
    """What whoever carries a conversation can do; our own listener, and any stream of bytes, can do all.

    Attributes:
      name: who that is, for errors.
      frames: raw routes, with fragments and control frames.
      pings: `session.ping`, `latency`, `ping_period`.
      extensions: extensions and masking of our own.
    """

    name: str = "trioktor"
    frames: bool = True
    pings: bool = True
    extensions: bool = True


EVERYTHING: Final = Supports()


class SessionSettings(TypedDict, total=False):
    """The settings of `WebSockets` that either end has, as keywords."""

    ping_period: float | None
    timeout: float
    max_frame_size: int | None
    max_fragments: int | None
    incoming: int | ChannelConfig
    outgoing: int | ChannelConfig
    close_timeout: float
    write_timeout: float | None
    answer_grace: float
    content_converter: ContentConverter | None
    max_queued_bytes: int
