"""Authentication before the upgrade: `bearer` and `basic`, who gets in, and what the others are told."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, records_above_info
from trioktor import Application, Headers, Response, WebSockets, WebSocketSession
from trioktor.auth import basic, bearer
from trioktor.testing import Handshake, handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock
Before = Any


async def tell(session: WebSocketSession) -> None:
    """Send who asks."""
    await session.send(repr(session.call.principal))


def guarded(hook: Before) -> Application:
    """An application whose only route asks first."""
    app = Application()
    app.install(WebSockets())
    app.websocket("/", tell, before=hook)
    return app


def authorization(*values: str) -> list[tuple[str, str]]:
    """Authorization headers."""
    return [("Authorization", value) for value in values]


def encoded(credentials: str | bytes, encoding: str = "utf-8") -> str:
    """The value of an Authorization header for basic credentials."""
    data = credentials.encode(encoding) if isinstance(credentials, str) else credentials
    return "Basic " + base64.b64encode(data).decode("ascii")


async def principal(app: Application, headers: Sequence[tuple[str, str]] = (), uri: str = "/") -> str:
    """Who the handler says is there."""
    async with handle_websocket_conversation(app, uri, headers=headers) as (incoming, _):
        return (await incoming.receive()).text


async def refused(app: Application, headers: Sequence[tuple[str, str]] = (), uri: str = "/") -> Handshake:
    """The answer to somebody who is not let in, whatever bytes are in the headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
    ours, theirs = trio.testing.memory_stream_pair()
    data = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all((REQUEST % uri.encode()).removesuffix(b"\r\n") + lines + b"\r\n")
        await ours.send_eof()
        async for chunk in ours:
            data += chunk
        await ours.aclose()
    head, _, body = data.partition(b"\r\n\r\n")
    start, *rest = head.split(b"\r\n")
    pairs = [line.partition(b": ") for line in rest]
    return Handshake(int(start.split()[1]), Headers(tuple((name.lower(), value) for name, _, value in pairs)), body)


def assert_challenged(answer: Handshake, challenge: str) -> None:
    """401, one challenge, and a text that says nothing more."""
    assert answer.status == 401
    assert answer.headers.get_all("www-authenticate") == [challenge]
    assert answer.body == b"authentication is required\n"
    assert answer.headers["connection"] == "close"


async def by_token(token: str) -> object:
    """The principal of one token."""
    return {"name": "Ada"} if token == "let me in" else None


async def by_password(name: str, password: str) -> object:
    """The principal of one name and password."""
    return (name, "admin") if (name, password) == ("Ada", "love:lace") else None


# bearer


@pytest.mark.parametrize(
    "value",
    ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR abc", "Bearer   abc"],
    ids=["as written", "lower", "upper", "mixed", "spaces between"],
)
async def test_a_known_token_gets_in_with_its_principal(value: str, autojump_clock: Clock) -> None:
    """F26: the scheme compares without case (RFC 9110 §11.1); `call.principal` is there for the handler."""
    app = guarded(bearer({"abc": "Ada", "def": "Bob"}))
    assert await principal(app, authorization(value)) == "'Ada'"


@pytest.mark.parametrize("who", ["Ada", 7, ("Ada", "admin"), {"name": "Ada"}, 0, ""], ids=repr)
async def test_a_principal_is_whatever_the_table_says(who: object, autojump_clock: Clock) -> None:
    """Any object but None, empty ones too."""
    assert await principal(guarded(bearer({"abc": who})), authorization("Bearer abc")) == repr(who)


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["Bearer abc", "Bearer abc"],
        ["Bearer abc", "Basic QWRhOng="],
        ["Bearer abd"],
        ["Bearer ABC"],
        ["Bearer ab"],
        ["Bearer abcd"],
        ["Bearer"],
        ["Bearer "],
        ["abc"],
        ["Bearerabc"],
        ["Bearer,abc"],
        ["Bearer: abc"],
        ["Bearer\tabc"],
        ["Bearer abc, Bearer def"],
        ["Bearer abc def"],
        ['Bearer "abc"'],
        ["Basic abc"],
        ["Token abc"],
        [""],
        ["   "],
        ["Bearer \xe9\xff"],
        ["\xe9 abc"],
        ["Bearer " + "a" * 10000],
    ],
    ids=[
        "missing", "twice", "two schemes", "unknown", "other case", "shorter", "longer", "no token", "empty token",
        "no scheme", "no space", "comma", "colon", "tab", "a list", "two tokens", "quotes", "basic", "another scheme",
        "empty", "blank", "latin-1", "latin-1 scheme", "long",
    ],
)  # fmt: skip
async def test_every_other_bearer_is_challenged(
    values: Sequence[str], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F26: 401 before the upgrade, whatever it is; no handler runs, nothing is logged."""
    answer = await refused(guarded(bearer({"abc": "Ada", "def": "Bob"})), authorization(*values))
    assert_challenged(answer, 'Bearer realm="trioktor"')
    assert records_above_info(caplog) == []


async def test_an_empty_table_lets_nobody_in(autojump_clock: Clock) -> None:
    """Nor does a token whose principal is None."""
    for table in ({}, {"abc": None}):
        assert (await refused(guarded(bearer(table)), authorization("Bearer abc"))).status == 401


async def test_a_function_may_know_the_tokens(autojump_clock: Clock) -> None:
    """What it returns is the principal; None is nobody."""
    app = guarded(bearer(by_token))
    assert await principal(app, authorization("Bearer let me in")) == "{'name': 'Ada'}"
    assert_challenged(await refused(app, authorization("Bearer abc")), 'Bearer realm="trioktor"')
    assert_challenged(await refused(app), 'Bearer realm="trioktor"')


async def test_a_table_may_change_while_it_is_served(autojump_clock: Clock) -> None:
    """Tokens come and go; the mapping is looked at for every request."""
    tokens = {"abc": "Ada"}
    app = guarded(bearer(tokens))
    assert await principal(app, authorization("Bearer abc")) == "'Ada'"
    del tokens["abc"]
    tokens["def"] = "Bob"
    assert (await refused(app, authorization("Bearer abc"))).status == 401
    assert await principal(app, authorization("Bearer def")) == "'Bob'"


@pytest.mark.parametrize(
    ("uri", "values", "expected"),
    [
        ("/?token=abc", [], "'Ada'"),
        ("/?other=1&token=abc", [], "'Ada'"),
        ("/?token=a%62c", [], "'Ada'"),
        ("/?token=wrong", ["Bearer abc"], "'Ada'"),
        ("/?token=abc", ["Basic QWRhOng="], "'Ada'"),
        ("/?token=abc", ["Bearer wrong"], None),
        ("/?token=", [], None),
        ("/?token", [], None),
        ("/?Token=abc", [], None),
        ("/?token=ABC", [], None),
        ("/?token=%C3%BF", [], None),
        ("/?token=%00", [], None),
        ("/?access_token=abc", [], None),
        ("/", [], None),
    ],
)
async def test_a_query_parameter_may_hold_the_token(
    uri: str, values: Sequence[str], expected: str | None, autojump_clock: Clock
) -> None:
    """A browser's `WebSocket` sets no headers; where there is one of the right scheme, it counts alone."""
    app = guarded(bearer({"abc": "Ada"}, query="token"))
    if expected is None:
        assert_challenged(await refused(app, authorization(*values), uri), 'Bearer realm="trioktor"')
    else:
        assert await principal(app, authorization(*values), uri) == expected


async def test_without_being_asked_for_a_token_in_the_query_is_none(autojump_clock: Clock) -> None:
    """Addresses end up in logs: opting in is the application's."""
    assert (await refused(guarded(bearer({"abc": "Ada"})), uri="/?token=abc&None=abc")).status == 401


# basic


@pytest.mark.parametrize(
    ("credentials", "passwords"),
    [
        ("Ada:lovelace", {"Ada": "lovelace", "Bob": "x"}),
        ("Ada:love:lace", {"Ada": "love:lace"}),
        ("Ada:", {"Ada": ""}),
        (":lovelace", {"": "lovelace"}),
        ("Ada:pässwörd €", {"Ada": "pässwörd €"}),
        ("Åda:😀", {"Åda": "😀"}),
        ("Ada: spaces ", {"Ada": " spaces "}),
    ],
    ids=["plain", "colon in the password", "empty password", "empty name", "UTF-8", "astral", "spaces"],
)
@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_a_known_name_and_password_get_in(
    credentials: str, passwords: dict[str, str], scheme: str, autojump_clock: Clock
) -> None:
    """F26: the principal is the name; RFC 7617 has UTF-8, and the first colon divides."""
    value = scheme + encoded(credentials).removeprefix("Basic")
    assert await principal(guarded(basic(passwords)), authorization(value)) == repr(credentials.partition(":")[0])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [encoded("Ada:lovelace"), encoded("Ada:lovelace")],
        [encoded("Ada:wrong")],
        [encoded("Ada:lovelac")],
        [encoded("Ada:lovelace ")],
        [encoded("Ada:lovelace?")],
        [encoded("Ada:")],
        [encoded("ada:lovelace")],
        [encoded("Bob:lovelace")],
        [encoded("Bob:")],
        [encoded(":")],
        [encoded("Ada")],
        [encoded("Ada lovelace")],
        [encoded("")],
        [encoded("Zoë:ü", "latin-1")],
        [encoded(b"\xff\xfe:\xff")],
        [encoded("Ada:lovelace\0")],
        ["Basic"],
        ["Basic "],
        ["Basic QWRhOmxvdmVsYWN"],
        ["Basic QWRh OmxvdmVsYWNl"],
        ["Basic QWRhOmxvdmVsYWNl, x"],
        ["Basic Ada:lovelace"],
        ["Basic !!!!"],
        ["Basic \xe9\xe9\xe9\xe9"],
        ["Basic ===="],
        ["Bearer QWRhOmxvdmVsYWNl"],
        ["QWRhOmxvdmVsYWNl"],
        ["BasicQWRhOmxvdmVsYWNl"],
        [""],
        ["Basic " + "QUFB" * 3000],
    ],
    ids=[
        "missing", "twice", "wrong", "shorter", "a space behind", "a question mark behind", "empty password",
        "name in another case", "unknown name", "unknown and empty", "nothing but a colon", "no colon", "a space",
        "nothing encoded", "latin-1", "not UTF-8", "a NUL behind", "no credentials", "blank",
        "padding missing", "a space inside", "a list", "not encoded", "other letters", "not ASCII", "padding alone",
        "another scheme", "no scheme", "no space between", "empty", "long",
    ],
)  # fmt: skip
async def test_everybody_else_is_challenged(
    values: Sequence[str], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F26: 401 whatever is wrong, the same answer for an unknown name and a wrong password; nothing is logged."""
    answer = await refused(guarded(basic({"Ada": "lovelace", "Zoë": "ü"})), authorization(*values))
    assert_challenged(answer, 'Basic realm="trioktor", charset="UTF-8"')
    assert records_above_info(caplog) == []


async def test_a_function_may_know_the_passwords(autojump_clock: Clock) -> None:
    """What it returns is the principal; None is nobody; it is not asked about what is garbled."""
    asked: list[str] = []

    async def check(name: str, password: str) -> object:
        asked.append(name)
        return await by_password(name, password)

    app = guarded(basic(check))
    assert await principal(app, authorization(encoded("Ada:love:lace"))) == "('Ada', 'admin')"
    assert (await refused(app, authorization(encoded("Ada:love")))).status == 401
    assert (await refused(app, authorization(encoded("Ada")))).status == 401
    assert (await refused(app)).status == 401
    assert asked == ["Ada", "Ada"]


# both


@pytest.mark.parametrize(
    ("realm", "quoted"),
    [
        ("my chat", "my chat"),
        ('the "inner" ring', 'the \\"inner\\" ring'),
        ("a\\b", "a\\\\b"),
        ('\\"', '\\\\\\"'),
        ("", ""),
        ("Übersee", "Übersee"),
        ('x", charset="', 'x\\", charset=\\"'),
    ],
    ids=["words", "quotes", "backslash", "both", "empty", "latin-1", "injection"],
)
async def test_a_realm_is_quoted(realm: str, quoted: str, autojump_clock: Clock) -> None:
    """RFC 9110 §11.5: one quoted string, whatever is in it."""
    assert_challenged(await refused(guarded(bearer({}, realm=realm))), f'Bearer realm="{quoted}"')
    assert_challenged(await refused(guarded(basic({}, realm=realm))), f'Basic realm="{quoted}", charset="UTF-8"')


@pytest.mark.parametrize("realm", ["a\r\nSet-Cookie: x=1", "a\nb", "a\0b", "€"])
def test_a_realm_that_cannot_be_written_is_an_error_at_once(realm: str) -> None:
    """Response splitting: where the hook is made, not at the first request."""
    for scheme in (bearer, basic):
        with pytest.raises(ValueError, match="header WWW-Authenticate"):
            scheme({}, realm=realm)


@pytest.mark.parametrize(
    ("hook", "values", "uri", "is_right"),
    [
        (bearer({"abc": "Ada"}), ["Bearer abc"], "/", True),
        (bearer({"abc": "Ada"}), ["Bearer wrong"], "/", False),
        (bearer({"abc": "Ada"}), ["Bearer \xe9\xff"], "/", False),
        (bearer({"abc": "Ada"}, query="token"), [], "/?token=wr%C3%B6ng", False),
        (basic({"Ada": "lovelace"}), [encoded("Ada:lovelace")], "/", True),
        (basic({"Ada": "lovelace"}), [encoded("Ada:wrong")], "/", False),
        (basic({"Ada": "lovelace"}), [encoded("Bob:lovelace")], "/", False),
        (basic({"Ada": "pässwörd"}), [encoded("Bob:")], "/", False),
    ],
    ids=["token", "wrong token", "latin-1", "query", "password", "wrong password", "unknown name", "empty password"],
)
async def test_secrets_are_compared_in_constant_time(
    hook: Before,
    values: Sequence[str],
    uri: str,
    is_right: bool,
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once per request, for an unknown name as for a wrong password: time does not tell them apart."""
    compared: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def record(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", record)
    app = guarded(hook)
    if is_right:
        assert await principal(app, authorization(*values), uri) == "'Ada'"
    else:
        assert (await refused(app, authorization(*values), uri)).status == 401
    assert len(compared) == 1
    assert all(isinstance(value, bytes) for value in compared[0])


async def test_every_token_is_compared_wherever_the_right_one_stands(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place of a token in the table does not show in the time, nor whether it is there."""
    count = 0
    compare = hmac.compare_digest

    def record(one: Any, other: Any) -> bool:
        nonlocal count
        count += 1
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", record)
    app = guarded(bearer({"a": 1, "b": 2, "c": 3}))
    for token, expected in [("a", "1"), ("b", "2"), ("c", "3")]:
        assert await principal(app, authorization(f"Bearer {token}")) == expected
    await refused(app, authorization("Bearer d"))
    assert count == 4 * 3


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
async def test_a_function_that_says_false_lets_nobody_in(scheme: str, autojump_clock: Clock) -> None:
    """Who writes `return password == expected` means a bool: False must not be somebody's name."""

    async def no_token(token: str) -> bool:
        return False

    async def no_password(name: str, password: str) -> bool:
        return False

    hook = bearer(no_token) if scheme == "Bearer" else basic(no_password)
    value = "Bearer abc" if scheme == "Bearer" else encoded("Ada:wrong")
    assert (await refused(guarded(hook), authorization(value))).status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
async def test_a_function_that_fails_lets_nobody_in(
    scheme: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """500, logged once; the peer learns nothing of it."""

    async def no_token(token: str) -> None:
        raise LookupError("the database is at 10.0.0.7")

    async def no_password(name: str, password: str) -> None:
        raise LookupError("the database is at 10.0.0.7")

    hook = bearer(no_token) if scheme == "Bearer" else basic(no_password)
    value = "Bearer abc" if scheme == "Bearer" else encoded("Ada:x")
    answer = await refused(guarded(hook), authorization(value))
    assert (answer.status, answer.body) == (500, b"the server failed\n")
    [record] = records_above_info(caplog)
    assert record.exc_info is not None
    assert "abc" not in record.getMessage()


async def test_a_secret_never_reaches_the_log(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the header nor in the query, let in or not, at the most talkative level."""
    caplog.set_level("DEBUG", logger="trioktor")
    app = guarded(bearer({"s3cret": "Ada"}, query="token"))
    await principal(app, authorization("Bearer s3cret"))
    await principal(app, uri="/?token=s3cret")
    await refused(app, uri="/?token=s3cret2")
    assert caplog.records != []
    assert "s3cret" not in caplog.text


async def test_a_token_of_a_foreign_page_never_reaches_the_log(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning about its origin names the path, and the path ends where the query begins."""
    app = guarded(bearer({"s3cret": "Ada"}, query="token"))
    answer = await refused(app, [("Origin", "https://elsewhere.example")], "/?token=s3cret")
    assert answer.status == 403
    assert "elsewhere.example" in caplog.text
    assert "s3cret" not in caplog.text


async def test_one_route_may_ask_and_another_not(autojump_clock: Clock) -> None:
    """Ktor's `authenticate { webSocket(…) }`: what is outside of it is open."""
    app = Application()
    app.install(WebSockets())
    app.websocket("/open", tell)
    app.websocket("/token", tell, before=bearer({"abc": "Ada"}))
    app.websocket("/password", tell, before=[basic({"Ada": "x"})])
    assert await principal(app, uri="/open") == "None"
    assert await principal(app, authorization("Bearer abc"), "/open") == "None"
    assert await principal(app, authorization("Bearer abc"), "/token") == "'Ada'"
    assert await principal(app, authorization(encoded("Ada:x")), "/password") == "'Ada'"
    assert_challenged(await refused(app, authorization(encoded("Ada:x")), "/token"), 'Bearer realm="trioktor"')
    assert (await refused(app, authorization("Bearer abc"), "/password")).status == 401


async def test_the_whole_application_may_ask(autojump_clock: Clock) -> None:
    """`before_upgrade` takes the same hooks, and plain pages stay open."""
    app = Application()
    app.install(WebSockets())
    app.before_upgrade(bearer({"abc": "Ada"}))
    app.websocket("/", tell)

    async def health(call: object) -> str:
        return "fine\n"

    app.get("/health", health)
    assert (await refused(app)).status == 401
    assert await principal(app, authorization("Bearer abc")) == "'Ada'"
    async with open_test_host(app) as host:
        answer = await host.get("/health")
    assert (answer.status, answer.body) == (200, b"fine\n")


async def test_a_later_hook_sees_the_principal(autojump_clock: Clock) -> None:
    """Authentication first, then what is allowed."""

    async def only_ada(call: Any) -> Response | None:
        return None if call.principal == "Ada" else Response("not for you\n", status=403)

    app = guarded([bearer({"abc": "Ada", "def": "Bob"}), only_ada])
    assert await principal(app, authorization("Bearer abc")) == "'Ada'"
    assert (await refused(app, authorization("Bearer def"))).status == 403
    assert (await refused(app)).status == 401


async def test_a_hook_keeps_nothing_from_one_request_to_the_next(autojump_clock: Clock) -> None:
    """Who comes behind somebody that was let in has to say who it is."""
    app = guarded(bearer({"abc": "Ada"}))
    assert await principal(app, authorization("Bearer abc")) == "'Ada'"
    assert (await refused(app)).status == 401
    assert await principal(app, authorization("Bearer abc")) == "'Ada'"


@pytest.mark.parametrize(
    "check", [None, "abc", ["abc"], 5, lambda token: "Ada"], ids=["None", "a token", "a list", "a number", "sync"]
)
def test_a_check_is_a_mapping_or_an_async_function(check: Any) -> None:
    """A mistake is an error where the hook is made, not a 500 for every client."""
    for scheme in (bearer, basic):
        with pytest.raises(TypeError):
            scheme(check)
