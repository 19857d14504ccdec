"""From an address to a connection on which a conversation can begin: dial, ask, judge the answer, follow redirects."""

from __future__ import annotations

import math
from typing import Final, final

import attrs
import trio

from ..engine.transport import Transport
from ..errors import CannotConnect, HandshakeInvalid, HandshakeRefused
from ..http.address import Address
from ..http.asking import BadAnswer, Exchange, Handshake
from ..http.headers import Headers
from ..http.opening import check_answer, new_key, opening_headers
from ..http.requests import RequestHead
from ..protocol.extensions import Extension
from ..protocol.negotiation import accept, offers
from ..version import __version__
from .dial import dial, look_up
from .exchange import exchange
from .options import Options

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SECRETS: Final = ("authorization", "cookie", "proxy-authorization")
"""Headers that are for the server that they were meant for (RFC 9110 §15.4)."""


@final
@attrs.frozen(kw_only=True)
class Opened:
    """A connection whose opening handshake is done.

    Attributes:
      address: the one that answered; another than was asked for behind a redirect.
      head: the request.
      trailing_data: what the server said behind its 101.
    """

    transport: Transport
    address: Address
    head: RequestHead
    response: Handshake
    protocol: str | None
    extensions: tuple[Extension, ...]
    trailing_data: bytes


async def open_conversation(options: Options) -> Opened:
    """Connect, and do the opening handshake, all within `open_timeout`.

    Raises:
      CannotConnect: nobody is there, or he does not answer in time.
      HandshakeRefused: the answer is no.
    """
    address, headers = options.address, options.headers
    left = options.max_redirects
    until = trio.current_time() + options.open_timeout
    while True:
        try:
            with trio.move_on_at(until):
                return await _open_at(options, address, headers, until)
            raise await _silent(options, address)
        except HandshakeRefused as refusal:
            location = refusal.headers.get("location")
            if refusal.status not in _REDIRECTS or location is None or not left:
                raise
            left -= 1
            was, address = address, _redirected(options, address, location, refusal)
            if address.origin != was.origin:
                headers = tuple(pair for pair in headers if pair[0].lower() not in (*_SECRETS, "host"))


async def _silent(options: Options, address: Address) -> CannotConnect:
    """The error that says that nobody answered in time."""
    is_direct = options.stream is None and options.path is None and not options.proxy
    addresses = await look_up(address.host, address.port) if is_direct else ()
    return CannotConnect(f"{address} did not answer within {options.open_timeout:g} s", addresses)


def _redirected(options: Options, address: Address, location: str, refusal: HandshakeRefused) -> Address:
    """Where a redirect leads, with the user information if it is the same origin.

    Raises:
      HandshakeRefused: there it must not be followed.
    """
    try:
        location = location.encode("latin-1").decode()  # many servers do not escape what is no ASCII
    except UnicodeDecodeError:
        pass
    try:
        new = address.redirected(location)
        if new.origin != address.origin and options.path is not None:
            raise ValueError("the redirect leads away from the UNIX socket")
        if isinstance(options.stream, trio.abc.Stream):
            raise ValueError("a redirect needs another stream: give stream= a function that opens one")
    except ValueError as error:
        text = f"the handshake was refused with {refusal.status}, and {error!s:.300}"
        raise HandshakeRefused(refusal.status, refusal.headers, refusal.body, text) from None
    return attrs.evolve(new, user=new.user or (address.user if new.origin == address.origin else None))


async def _open_at(options: Options, address: Address, headers: tuple[tuple[str, str], ...], until: float) -> Opened:
    transport = await dial(options, address)
    try:
        return await shake_hands(transport, options, address, headers, until)
    except BaseException:
        if not transport.close_nowait():
            await transport.aclose()
        raise


async def shake_hands(
    transport: Transport,
    options: Options,
    address: Address,
    headers: tuple[tuple[str, str], ...],
    until: float = math.inf,
) -> Opened:
    """Do the opening handshake.

    Args:
      until: see `exchange`.

    Raises:
      HandshakeRefused, CannotConnect: as `open_conversation`.
    """
    key = new_key()
    given = {name.lower() for name, _ in headers}
    pairs = [*headers]
    if "user-agent" not in given:
        pairs.append(("User-Agent", f"trioktor/{__version__}"))
    if address.authorization is not None and "authorization" not in given:
        pairs.append(("Authorization", address.authorization))
    pairs += opening_headers(
        key, subprotocols=options.subprotocols, extensions=offers(options.extensions), origin=options.origin
    )
    request = Exchange("GET", address.target, address.authority, pairs)
    try:
        answer, trailing_data = await exchange(transport, request, until)
    except BadAnswer as error:
        if error.is_end:
            raise CannotConnect(f"{address} does not answer: {error}") from error
        raise HandshakeInvalid(0, Headers(), b"", f"{address} does not speak HTTP/1.1: {error!s:.200}") from error
    except trio.BrokenResourceError as error:
        raise CannotConnect(f"the connection to {address} was lost: {error.__cause__ or error}") from error
    if answer.status != 101:
        raise HandshakeRefused(answer.status, answer.headers, answer.body)
    try:
        protocol = check_answer(answer, key, request.headers.tokens("sec-websocket-protocol"))
        extensions: tuple[Extension, ...] = ()
        if "sec-websocket-extensions" not in given:  # a test that offers them by hand judges the answer, too
            extensions = accept(options.extensions, answer.headers.get_all("sec-websocket-extensions"))
    except ValueError as error:
        raise HandshakeInvalid(101, answer.headers, b"", f"{address} answered wrongly: {error}") from None
    head = RequestHead("GET", address.target, "1.1", request.headers, address.authority)
    return Opened(
        transport=transport,
        address=address,
        head=head,
        response=answer,
        protocol=protocol,
        extensions=extensions,
        trailing_data=trailing_data,
    )
