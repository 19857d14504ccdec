"""Authentication before the upgrade: ready-made hooks for bearer tokens and basic credentials.

They set `call.principal`, or answer 401 with a challenge (Ktor's `authenticate { webSocket(…) }`).
Secrets are compared in constant time. A browser's `WebSocket` cannot set headers: `query` takes the token
from the address instead, where it may end up in logs; give out short-lived ones for that.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from .http.call import Call
from .http.responses import Response
from .routing.endpoints import Before
from .routing.signatures import is_async

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

TokenCheck: TypeAlias = "Mapping[str, Any] | Callable[[str], Awaitable[Any]]"
PasswordCheck: TypeAlias = "Mapping[str, str] | Callable[[str, str], Awaitable[Any]]"


def bearer(check: TokenCheck, *, realm: str = "trioktor", query: str | None = None) -> Before:
    """Ask for a bearer token (RFC 6750).

    Args:
      check: principals by token; or an async function of the token that returns the principal, or None.
      realm: named in the challenge.
      query: a query parameter that may hold the token instead of the Authorization header.
    """
    _check(check)
    refusal = _challenge("Bearer", realm)

    async def authenticate(call: Call) -> Response | None:
        token = _credentials(call, "bearer")
        if token is None and query is not None:
            token = call.query.get(query, [None])[0]
        if token is None:
            return refusal
        principal = _look_up(check, token) if isinstance(check, Mapping) else await check(token)
        return _admit(call, principal, refusal)

    return authenticate


def basic(check: PasswordCheck, *, realm: str = "trioktor") -> Before:
    """Ask for a name and password (RFC 7617).

    Args:
      check: passwords by name, where the principal is the name; or an async function of name and password
        that returns the principal, or None.
      realm: named in the challenge.
    """
    _check(check)
    refusal = _challenge("Basic", realm, ', charset="UTF-8"')

    async def authenticate(call: Call) -> Response | None:
        credentials = _name_and_password(_credentials(call, "basic"))
        if credentials is None:
            return refusal
        name, password = credentials
        if isinstance(check, Mapping):
            expected = check.get(name)
            # An unknown name takes as long as a wrong password.
            is_right = _equal(password, expected if expected is not None else password + "?")
            principal = name if is_right else None
        else:
            principal = await check(name, password)
        return _admit(call, principal, refusal)

    return authenticate


def _check(check: object) -> None:
    if not isinstance(check, Mapping) and not (callable(check) and is_async(check)):
        raise TypeError(f"credentials are checked by a mapping or an async function, not by {check!r:.100}")


def _admit(call: Call, principal: Any, refusal: Response) -> Response | None:
    if principal is None or principal is False:  # False: a check that says whether, not who
        return refusal
    call.principal = principal
    return None


def _challenge(scheme: str, realm: str, more: str = "") -> Response:
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    return Response(
        "authentication is required\n",
        status=401,
        headers=[("WWW-Authenticate", f'{scheme} realm="{quoted}"{more}')],
    )


def _credentials(call: Call, scheme: str) -> str | None:
    """What follows the scheme in the only Authorization header."""
    values = call.headers.get_all("authorization")
    if len(values) != 1:
        return None
    name, _, credentials = values[0].partition(" ")
    return credentials.strip() if name.lower() == scheme and credentials.strip() else None


def _name_and_password(credentials: str | None) -> tuple[str, str] | None:
    try:
        name, colon, password = base64.b64decode(credentials or "", validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or _CONTROLS.search(name + password):  # RFC 7617 §2
        return None
    return name, password


_LONGEST_SECRET: Final = 8192
"""Characters of a token or password: more is nobody's, and would be compared with everybody's."""


def _look_up(principals: Mapping[str, Any], token: str) -> Any:
    """The principal of a token; every token is compared, so that time says nothing of the tables."""
    if len(token) > _LONGEST_SECRET:
        return None
    given = _encoded(token)
    found = None
    for known, principal in principals.items():
        if hmac.compare_digest(given, _encoded(known)):
            found = principal
    return found


def _equal(one: str, other: str) -> bool:
    return len(one) <= _LONGEST_SECRET and hmac.compare_digest(_encoded(one), _encoded(other))


def _encoded(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogateescape")
