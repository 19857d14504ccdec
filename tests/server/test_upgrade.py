"""Between a good request and its 101: the subprotocol, the route that serves it, and the hooks that are asked."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, final

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, client_bytes, close, records_above_info
from tests.support.listening import serving
from trioktor import (
    Application,
    Call,
    Frame,
    HandshakeRefused,
    RawWebSocketSession,
    Response,
    WebSockets,
    WebSocketSession,
)
from trioktor.server.admission import Limits
from trioktor.server.host import Host
from trioktor.testing import handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock
SECRET: Final = "the password is 1234"


def installed(**settings: Any) -> Application:
    """An application with WebSockets and no routes."""
    app = Application()
    app.install(WebSockets(**settings))
    return app


async def tell_protocol(session: WebSocketSession) -> None:
    """Send the subprotocol that was chosen."""
    await session.send(repr(session.call.protocol))


async def quiet(session: WebSocketSession) -> None:
    """Return at once."""


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def page(call: Call) -> str:
    """Answer plain requests."""
    return "a page\n"


def saying(text: str) -> Callable[[WebSocketSession], Any]:
    """A handler that sends a text and the subprotocol."""

    async def say(session: WebSocketSession) -> None:
        await session.send(f"{text} {session.call.protocol}")

    return say


async def first_text(app: Application, uri: str = "/", **options: Any) -> str:
    """What a handler says first."""
    async with handle_websocket_conversation(app, uri, **options) as (incoming, _):
        return (await incoming.receive()).text


async def negotiated(app: Application, uri: str = "/", **options: Any) -> tuple[str, list[str]]:
    """What a handler says first, and the subprotocol headers of the 101."""
    async with handle_websocket_conversation(app, uri, **options) as conversation:
        frame = await conversation.incoming.receive()
        return frame.text, conversation.response.headers.get_all("sec-websocket-protocol")


async def refused(app: Application, uri: str = "/", **options: Any) -> HandshakeRefused:
    """The answer to a request that does not become a conversation."""
    with pytest.raises(HandshakeRefused) as caught:
        async with handle_websocket_conversation(app, uri, **options):
            pass
    return caught.value


async def read_all(client: RawClient) -> bytes:
    """Everything until the end of the stream."""
    data = b""
    while chunk := await client.stream.receive_some():
        data += chunk
    return data


async def answer(app: Application, data: bytes) -> bytes:
    """All that a server says to these bytes until it hangs up; what goes wrong there is logged as in `serve`."""
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.handle_stream, theirs)
            await ours.send_all(data)
            received = await read_all(RawClient(ours))
            await ours.aclose()
    return received


def upgrade(path: str = "/", *lines: bytes) -> bytes:
    """An upgrade request with more header lines."""
    return (REQUEST % path.encode()).removesuffix(b"\r\n") + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def assert_one_failure_is_logged(caplog: pytest.LogCaptureFixture, path: str = "/") -> None:
    """One record, an error of `trioktor.server` with its traceback that names the path."""
    [record] = records_above_info(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert path in record.getMessage()
    assert "trioktor's own" not in record.getMessage()


# subprotocols


@pytest.mark.parametrize(
    ("served", "offered", "expected"),
    [
        ("chat", ["chat"], "chat"),
        ("chat", ["other", "chat"], "chat"),
        ("chat", ["other"], None),
        ("chat", [], None),
        ("chat", ["Chat"], None),
        ("chat", ["chats"], None),
        (["v2", "v1"], ["v1", "v2"], "v2"),
        (["v2", "v1"], ["v1"], "v1"),
        (("v2", "v1"), ["v3"], None),
        (["v1"], ["v1", "v1", "v1"], "v1"),
        ([], ["v1"], None),
        (lambda call: call.offered_protocols[-1], ["v1", "v2"], "v2"),
        (lambda call: None, ["v1"], None),
        (lambda call: None, [], None),
        (lambda call: call.query["want"][0], ["v1", "v2"], "v2"),
    ],
    ids=[
        "one", "one of two", "not offered", "nothing offered", "case", "a prefix", "preference", "the other",
        "none of the list", "offered thrice", "no list", "function", "function says none", "function, none offered",
        "function of the query",
    ],
)  # fmt: skip
async def test_the_servers_preference_decides(
    served: Any, offered: Sequence[str], expected: str | None, autojump_clock: Clock
) -> None:
    """F19, W-19: a name, a list or a function; the choice is on the call and in the 101, exactly once or not at all."""
    app = installed(subprotocols=served)
    app.websocket("/", tell_protocol)
    text, headers = await negotiated(app, "/?want=v2", subprotocols=offered)
    assert text == repr(expected)
    assert headers == ([] if expected is None else [expected])


async def test_both_sides_know_the_same_choice(autojump_clock: Clock) -> None:
    """The client's session shows it as the server's does."""
    app = installed(subprotocols=["v2", "v1"])
    app.websocket("/", quiet)
    async with handle_websocket_conversation(app, "/", subprotocols=["v1", "v2"]) as conversation:
        assert conversation.session.call.protocol == "v2"


@pytest.mark.parametrize(
    "lines",
    [["v1, v2"], ["v1", "v2"], ["v1,,  ,v2,"], ["", "v1", "v2"], ["v1\t,\tv2"]],
    ids=["one line", "two lines", "empty elements", "an empty line", "tabs"],
)
async def test_offers_come_from_all_header_lines(lines: Sequence[str], autojump_clock: Clock) -> None:
    """F19: Ktor reads the first line only."""
    app = installed(subprotocols=["v2"])
    app.websocket("/", tell_protocol)
    headers = [("Sec-WebSocket-Protocol", line) for line in lines]
    assert await negotiated(app, headers=headers) == ("'v2'", ["v2"])


async def test_a_route_may_serve_other_subprotocols(autojump_clock: Clock) -> None:
    """Overrides replace the installed list; the other routes keep it."""
    app = installed(subprotocols="v1")
    app.websocket("/installed", tell_protocol)
    app.websocket("/other", tell_protocol, subprotocols="v2")
    app.websocket("/none", tell_protocol, subprotocols=())
    offered = ["v1", "v2"]
    assert await first_text(app, "/installed", subprotocols=offered) == "'v1'"
    assert await first_text(app, "/other", subprotocols=offered) == "'v2'"
    assert await first_text(app, "/none", subprotocols=offered) == "None"


def fail(call: Call) -> str:
    """Fail with a text that is nobody's business."""
    raise LookupError(SECRET)


@pytest.mark.parametrize(
    "choose",
    [
        fail,
        lambda call: "v3",
        lambda call: "V1",
        lambda call: "",
        lambda call: "v1, v2",
        lambda call: ["v1"],
        lambda call: b"v1",
        lambda call: True,
        lambda call: "v1\r\nX-Injected: yes",
    ],
    ids=[
        "raises", "not offered", "other case", "empty", "two at once", "a list", "bytes", "a bool",
        "splits the response",
    ],
)  # fmt: skip
async def test_a_function_that_fails_or_makes_names_up_is_a_500(
    choose: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F19: the peer gets a line that tells nothing, the log a traceback that names the path, nobody a session."""
    app = installed(subprotocols=choose)
    app.websocket("/rooms/{room}", quiet)
    answer = await refused(app, "/rooms/7", subprotocols=["v1", "v2"])
    assert answer.status == 500
    assert answer.body == b"the server failed\n"
    assert answer.headers.get("sec-websocket-protocol") is None
    assert_one_failure_is_logged(caplog, "/rooms/7")


@pytest.mark.parametrize(
    "offer",
    [b"a b", b'"quoted"', b"a/b", b"a;b=1", b"a\tb", b"\xe9", b"\xff\xfe", b"v\xa01"],
    ids=["space", "quotes", "slash", "parameter", "tab", "latin-1", "not UTF-8", "no-break space"],
)
async def test_an_offer_that_is_no_token_gets_an_answer_and_is_never_echoed(
    offer: bytes, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a client offers to a function that takes the first: an answer, and no error of trioktor's own."""
    app = installed(subprotocols=lambda call: next(iter(call.offered_protocols), None))
    app.websocket("/", quiet)
    received = await answer(app, upgrade("/", b"Sec-WebSocket-Protocol: " + offer) + client_bytes(close(1000)))
    assert received.startswith(b"HTTP/1.1 ")
    assert b"Sec-WebSocket-Protocol" not in received
    assert not any("trioktor's own" in record.getMessage() for record in records_above_info(caplog))


@pytest.mark.parametrize("offer", [b"a b", b"\xe9", b'"v1"', b",,,", b"=" * 10000], ids=ascii)
async def test_odd_offers_match_nothing_in_a_list(
    offer: bytes, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """They are no offers of what is served: a 101 without the header."""
    app = installed(subprotocols=["v1"])
    app.websocket("/", quiet)
    received = await answer(app, upgrade("/", b"Sec-WebSocket-Protocol: " + offer) + client_bytes(close(1000)))
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Protocol" not in received
    assert records_above_info(caplog) == []


async def test_the_function_sees_the_whole_call_and_what_hooks_attached(autojump_clock: Clock) -> None:
    """It is asked last, after every hook."""
    app = installed(subprotocols=lambda call: call.attributes["wanted"])

    @app.before_upgrade
    async def want(call: Call) -> None:
        assert call.protocol is None
        call.attributes["wanted"] = call.path_parameters["version"]

    app.websocket("/{version}", tell_protocol)
    assert await negotiated(app, "/v2", subprotocols=["v1", "v2"]) == ("'v2'", ["v2"])


def test_an_async_function_cannot_choose() -> None:
    """Its coroutine is no name: refused when it is configured, not a 500 for every client."""

    async def choose(call: Call) -> str:
        return call.offered_protocols[0]

    with pytest.raises((TypeError, ValueError), match="subprotocols"):
        WebSockets(subprotocols=choose)


# a subprotocol selects the route


async def test_a_path_may_have_a_handler_for_each_subprotocol(autojump_clock: Clock) -> None:
    """F19, W-19: who offers it gets it, with the name on the call and in the 101 once."""
    app = installed()
    app.websocket("/", saying("old"), protocol="v1")
    app.websocket("/", saying("new"), protocol="v2")
    assert await negotiated(app, subprotocols=["v1"]) == ("old v1", ["v1"])
    assert await negotiated(app, subprotocols=["v2"]) == ("new v2", ["v2"])
    assert await negotiated(app, subprotocols=["v3", "v2"]) == ("new v2", ["v2"])


async def test_of_several_that_fit_the_first_registered_wins(autojump_clock: Clock) -> None:
    """F19: not the first offered."""
    app = installed()
    app.websocket("/", saying("old"), protocol="v1")
    app.websocket("/", saying("new"), protocol="v2")
    assert await first_text(app, subprotocols=["v2", "v1"]) == "old v1"


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
async def test_a_route_without_a_subprotocol_serves_the_rest(is_first: bool, autojump_clock: Clock) -> None:
    """Registered before the others or after them: it is the fallback, and names no subprotocol."""
    app = installed()
    if is_first:
        app.websocket("/", saying("any"))
    app.websocket("/", saying("old"), protocol="v1")
    if not is_first:
        app.websocket("/", saying("any"))
    assert await negotiated(app) == ("any None", [])
    assert await negotiated(app, subprotocols=["v3", "V1"]) == ("any None", [])
    assert await negotiated(app, subprotocols=["v3", "v1"]) == ("old v1", ["v1"])


async def test_the_fallback_chooses_among_its_own(autojump_clock: Clock) -> None:
    """A route's own `protocol` goes before the list, which is the fallback's business."""
    app = installed(subprotocols=["v2", "v1"])
    app.websocket("/", saying("own"), protocol="v1")
    app.websocket("/", saying("list"))
    assert await negotiated(app, subprotocols=["v1", "v2"]) == ("own v1", ["v1"])
    assert await negotiated(app, subprotocols=["v2"]) == ("list v2", ["v2"])


@pytest.mark.parametrize(
    "offered", [[], ["v3"], ["V1"], ["v1.1"], ["v"]], ids=["none", "another", "case", "longer", "shorter"]
)
@pytest.mark.parametrize("path", ["/chat", "/rooms/7", "/files/a/b"])
async def test_who_offers_nothing_that_is_served_gets_a_400_that_names_it(
    path: str, offered: Sequence[str], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F19, F20: the same with parameters in the path as without; nobody is alarmed."""
    app = installed()
    for pattern in ("/chat", "/rooms/{room}", "/files/{name...}"):
        app.websocket(pattern, quiet, protocol="v1")
        app.websocket(pattern, quiet, protocol="v2")
    answer = await refused(app, path, subprotocols=offered)
    assert answer.status == 400
    assert answer.body == b"offer one of the subprotocols that this path serves: 'v1', 'v2'\n"
    assert answer.headers.get("sec-websocket-protocol") is None
    assert records_above_info(caplog) == []


async def test_offers_in_several_lines_select_a_route(autojump_clock: Clock) -> None:
    """F19: the second line counts as the first does."""
    app = installed()
    app.websocket("/", tell_protocol, protocol="v2")
    headers = [("Sec-WebSocket-Protocol", "v1"), ("Sec-WebSocket-Protocol", "v3, v2")]
    assert await negotiated(app, headers=headers) == ("'v2'", ["v2"])


async def test_a_worse_pattern_serves_the_subprotocol_that_the_better_one_does_not(autojump_clock: Clock) -> None:
    """F22: what is asked for decides before the quality of the match."""
    app = installed()
    app.websocket("/rooms/lobby", saying("lobby"), protocol="v1")
    app.websocket("/rooms/{room}", saying("room"), protocol="v2")
    assert await first_text(app, "/rooms/lobby", subprotocols=["v2", "v1"]) == "lobby v1"
    assert await first_text(app, "/rooms/lobby", subprotocols=["v2"]) == "room v2"
    assert (await refused(app, "/rooms/lobby")).status == 400


async def test_raw_routes_are_selected_in_the_same_way(autojump_clock: Clock) -> None:
    """F17: raw or not is the handler's business."""
    app = installed()

    async def raw(session: RawWebSocketSession) -> None:
        await session.send(f"raw {session.call.protocol}")

    app.websocket_raw("/", raw, protocol="v1")
    app.websocket("/", saying("messages"), protocol="v2")
    async with open_test_host(app) as host:
        for offered, expected in [("v1", "raw v1"), ("v2", "messages v2")]:
            async with host.websocket_raw("/", subprotocols=[offered]) as (incoming, outgoing):
                assert (await incoming.receive()).text == expected
                await outgoing.send(close(1000))


async def test_plain_requests_have_nothing_to_do_with_subprotocols(autojump_clock: Clock) -> None:
    """426 where only WebSockets are served, the page where there is one."""
    app = installed()
    app.websocket("/", quiet, protocol="v1")
    app.websocket("/both", quiet, protocol="v1")
    app.get("/both", page)
    async with open_test_host(app) as host:
        assert (await host.get("/")).status == 426
        assert (await host.get("/both")).body == b"a page\n"
    assert (await refused(app, "/both")).status == 400


@pytest.mark.parametrize("protocol", [None, "v1"])
@pytest.mark.parametrize("path", ["/", "/rooms/{room}"])
def test_a_second_route_for_the_same_is_an_error(path: str, protocol: str | None) -> None:
    """It could never be reached; the text names the path and the subprotocol."""
    app = installed()
    app.websocket(path, quiet, protocol=protocol)
    app.websocket(path, quiet, protocol="V1")
    with pytest.raises(ValueError, match=r"has a WebSocket handler.* already") as caught:
        app.websocket(path, quiet, protocol=protocol)
    assert repr(path) in str(caught.value)
    assert (repr(protocol) in str(caught.value)) == (protocol is not None)
    app.websocket(path, quiet, protocol="v2")


@pytest.mark.parametrize(
    "protocol",
    [
        "",
        " ",
        "a b",
        "ocpp2.0,ocpp1.6",
        " v1",
        "v1\n",
        "a\r\nX: y",
        '"v1"',
        "é",
        "a/b",
        1,
        b"v1",
        ["v1"],
        ("v1",),
        True,
    ],
    ids=ascii,
)
def test_protocol_is_one_name(protocol: Any) -> None:
    """W-19: the list in Ktor's own example, which never matches, is an error here."""
    with pytest.raises(ValueError, match=r"^protocol must be one subprotocol's name"):
        installed().websocket("/", quiet, protocol=protocol)
    with pytest.raises(ValueError, match=r"^protocol must be one subprotocol's name"):
        installed().websocket("/", protocol=protocol)(quiet)


# hooks


def noting(seen: list[str], name: str) -> Callable[[Call], Any]:
    """A hook that says that it was asked."""

    async def hook(call: Call) -> None:
        seen.append(name)
        call.attributes.setdefault("asked", []).append(name)

    return hook


async def test_hooks_are_asked_in_order_the_applications_first(autojump_clock: Clock) -> None:
    """F24, F26: registered early or late, before a route or behind it; what they attach is there for the handler."""
    seen: list[str] = []
    app = installed()
    app.before_upgrade(noting(seen, "app 1"))

    @app.websocket("/several", before=[noting(seen, "route 1"), noting(seen, "route 2")])
    @app.websocket("/one", before=noting(seen, "route"))
    @app.websocket("/none")
    async def handler(session: WebSocketSession) -> None:
        seen.append("handler")
        await session.send(", ".join(session.call.attributes["asked"]))

    app.before_upgrade(noting(seen, "app 2"))
    for path, expected in [
        ("/several", "app 1, app 2, route 1, route 2"),
        ("/one", "app 1, app 2, route"),
        ("/none", "app 1, app 2"),
    ]:
        seen.clear()
        assert await first_text(app, path) == expected
        assert seen == [*expected.split(", "), "handler"]


async def test_a_hook_sees_the_whole_request(autojump_clock: Clock) -> None:
    """The handler's own call: path, parameters, query, headers, cookies and offers."""
    calls: list[Call] = []
    app = installed()

    @app.before_upgrade
    async def hook(call: Call) -> None:
        calls.append(call)
        assert call.principal is None
        call.principal = call.cookies["who"]

    @app.websocket("/rooms/{room}")
    async def handler(session: WebSocketSession) -> None:
        assert session.call is calls[0]
        await session.send(session.call.principal)

    headers = {"Cookie": "who=Ada", "X-Extra": "y"}
    assert await first_text(app, "/rooms/7?a=1", headers=headers, subprotocols=["v1"]) == "Ada"
    [seen] = calls
    assert (seen.method, seen.path, seen.scheme) == ("GET", "/rooms/7", "ws")
    assert seen.path_parameters == {"room": "7"}
    assert seen.query == {"a": ["1"]}
    assert seen.headers["x-extra"] == "y"
    assert seen.offered_protocols == ["v1"]


@pytest.mark.parametrize(
    ("response", "status", "headers", "body"),
    [
        (Response("not you\n", status=403), 403, {}, b"not you\n"),
        (Response(b"\x00\xff", status=400, content_type="image/x"), 400, {"content-type": "image/x"}, b"\x00\xff"),
        (Response("", status=302, headers={"Location": "/login"}), 302, {"location": "/login"}, b""),
        (Response("slow", status=429, headers=[("Retry-After", "9")]), 429, {"retry-after": "9"}, b"slow"),
        (Response("täxt"), 200, {}, "täxt".encode()),
        (Response("a body", status=204), 204, {}, b""),
    ],
    ids=["403", "bytes", "redirect", "429", "200", "204"],
)
@pytest.mark.parametrize("where", ["app", "route"])
async def test_a_response_is_sent_instead_of_the_upgrade(
    response: Response,
    status: int,
    headers: dict[str, str],
    body: bytes,
    where: str,
    autojump_clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """F24, W-20: status, headers and body are the hook's; later hooks and the handler are not asked."""
    seen: list[str] = []
    app = installed(subprotocols="v1")

    async def hook(call: Call) -> Response | None:
        return response

    app.before_upgrade(noting(seen, "first"))
    if where == "app":
        app.before_upgrade(hook)
        app.before_upgrade(noting(seen, "later"))

    async def handler(session: WebSocketSession) -> None:
        seen.append("handler")

    before = [noting(seen, "later")] if where == "app" else [hook, noting(seen, "later")]
    app.websocket("/", handler, before=before)
    answer = await refused(app, subprotocols=["v1"])
    assert (answer.status, answer.body) == (status, body)
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert answer.headers["connection"] == "close"
    assert answer.headers.get("upgrade") is None
    assert answer.headers.get("sec-websocket-protocol") is None
    assert seen == ["first"]
    assert records_above_info(caplog) == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(SECRET),
        NotImplementedError(SECRET),
        ExceptionGroup(SECRET, [KeyError(SECRET)]),
        trio.EndOfChannel(SECRET),
        trio.BrokenResourceError(SECRET),
        trio.TooSlowError(SECRET),
        StopIteration(SECRET),
        ConnectionResetError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_hook_that_fails_is_a_500_that_tells_nothing(
    error: Exception, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises: a line for the peer, a traceback for the log, no session."""
    app = installed()

    @app.before_upgrade
    async def hook(call: Call) -> None:
        raise error

    app.websocket("/", quiet)
    received = await answer(app, upgrade("/"))
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.endswith(b"\r\n\r\nthe server failed\n")
    assert SECRET.encode() not in received
    assert_one_failure_is_logged(caplog)


@pytest.mark.parametrize(
    "value",
    [True, False, 403, "no", b"no", (403, "no"), {}, Response],
    ids=["True", "False", "status", "str", "bytes", "tuple", "empty", "the class"],
)
async def test_a_hook_returns_none_or_a_response(
    value: object, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything else lets nobody in: False is as much a mistake as True."""
    app = installed()

    async def hook(call: Call) -> object:
        return value

    app.websocket("/", quiet, before=hook)  # type: ignore[arg-type]
    received = await answer(app, upgrade("/"))
    assert received.startswith(b"HTTP/1.1 500 ")
    assert_one_failure_is_logged(caplog)


@pytest.mark.parametrize(
    "body", [{"error": "no"}, None, 5, "\ud800"], ids=["a dict", "None", "a number", "half a surrogate pair"]
)
async def test_a_response_that_cannot_be_written_is_a_500(
    body: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The mistake is the hook's, and the client waits for an answer."""
    app = installed()

    async def hook(call: Call) -> Response:
        return Response(body, status=403)

    app.websocket("/", quiet, before=hook)
    received = await answer(app, upgrade("/"))
    assert received.startswith(b"HTTP/1.1 500 ")
    assert_one_failure_is_logged(caplog)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_leaves_a_hook_bare(error: type[BaseException], autojump_clock: Clock) -> None:
    """Ctrl-C in a hook ends the server as anywhere else."""
    app = installed()

    @app.before_upgrade
    async def hook(call: Call) -> None:
        raise error

    app.websocket("/", quiet)
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(upgrade("/"))
    with pytest.raises(error):
        await app.handle_stream(theirs)
    assert await read_all(RawClient(ours)) == b""


# hooks that take their time


async def linger(call: Call) -> None:
    """Take six seconds."""
    await trio.sleep(6)


async def for_ever(call: Call) -> None:
    """Never come back."""
    await trio.sleep_forever()


async def test_a_slow_hook_delays_its_own_client_only(autojump_clock: Clock) -> None:
    """Others come and go meanwhile; within `open_timeout` it is a session like any other."""
    app = installed()
    app.websocket("/slow", quiet, before=linger)
    app.websocket("/", echo)
    async with serving(app) as (server, connect):
        slow, fast = await connect(), await connect()
        await slow.send_bytes(REQUEST % b"/slow")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await fast.upgrade()
        await fast.send(Frame.Text("hello"))
        assert await fast.receive() == Frame.Text("hello")
        assert trio.current_time() == began
        assert len(server.sessions) == 1
        assert (await slow.stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        assert trio.current_time() - began == pytest.approx(6)
        await fast.aclose()
        await slow.aclose()


async def test_frames_that_come_while_a_hook_runs_are_not_lost(autojump_clock: Clock) -> None:
    """Sent in one piece with the request, or behind it: they are the conversation's first."""
    app = installed()
    app.websocket("/", echo, before=linger)
    async with serving(app) as (_, connect):
        client = await connect()
        await client.send_bytes(REQUEST % b"/" + client_bytes(Frame.Text("with it")))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(Frame.Text("behind it"), close(1000))
        data = await read_all(client)
        head, _, frames = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames == b"\x81\x07with it\x81\x09behind it\x88\x02\x03\xe8"
        await client.aclose()


@pytest.mark.parametrize(
    ("hooks", "seconds"), [([for_ever], 2), ([linger, linger], 10)], ids=["one that never ends", "two together"]
)
async def test_hooks_longer_than_open_timeout_are_a_503(
    hooks: list[Any], seconds: float, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """All hooks together; nobody is kept for ever, and the client is told."""
    app = installed()
    app.websocket("/", quiet, before=hooks)
    host = Host(app, Limits(open_timeout=seconds))
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.handle, theirs)
        await ours.send_all(upgrade("/"))
        first = bytes(await ours.receive_some())
        assert trio.current_time() - began == pytest.approx(seconds)
        assert first.startswith(b"HTTP/1.1 503 ")
        assert first.endswith(b"the server took too long\n")
        await ours.aclose()
    assert host.sessions == ()
    assert records_above_info(caplog) == []


async def fail_when_cancelled(call: Call) -> None:
    """Fail while cleaning up, in a task of its own."""

    async def clean_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError(SECRET)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clean_up)
        await trio.sleep_forever()


async def test_a_hook_that_fails_when_its_time_is_over_gets_an_answer_too(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error comes in a group with the cancellation: it is logged as the hook's, and the client is told."""
    app = installed()
    app.websocket("/", quiet, before=fail_when_cancelled)
    received = await answer(app, upgrade("/"))
    assert received.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 503 "))
    assert SECRET.encode() not in received
    assert_one_failure_is_logged(caplog)


async def test_a_server_that_closes_while_a_hook_runs_answers_503(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook is cancelled at once, no session begins, and `serve` ends."""
    app = installed()
    ended: list[str] = []

    @app.before_upgrade
    async def hook(call: Call) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    app.websocket("/", quiet)
    async with serving(app) as (server, connect):
        client = await connect()
        await client.send_bytes(upgrade("/"))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await server.aclose()
        assert ended == ["cancelled"]
        received = await read_all(client)
        assert received.startswith(b"HTTP/1.1 503 ")
        assert received.endswith(b"the server is shutting down\n")
        assert trio.current_time() - began < 1
        assert server.sessions == ()
        await client.aclose()
    assert records_above_info(caplog) == []


async def test_a_cancelled_server_cancels_its_hooks(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """No shield: the block ends at once, and the client sees the end."""
    app = installed()
    app.websocket("/", quiet, before=for_ever)
    began = trio.current_time()
    async with serving(app) as (_, connect):
        client = await connect()
        await client.send_bytes(upgrade("/"))
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - began <= 1
    assert await read_all(client) == b""
    await client.aclose()
    assert records_above_info(caplog) == []


async def test_a_client_that_leaves_while_a_hook_runs_is_no_event(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged, and nothing is left of it."""
    app = installed()
    app.websocket("/", echo, before=linger)
    async with serving(app) as (server, connect):
        client = await connect()
        await client.send_bytes(upgrade("/"))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.sleep(20)
        assert server.sessions == ()
    assert records_above_info(caplog) == []


# when hooks are asked


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (upgrade("/nothing"), 404),
        (upgrade("/").replace(b"Version: 13", b"Version: 12"), 426),
        (upgrade("/").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        (upgrade("/").replace(b"GET", b"POST"), 405),
        (upgrade("/", b"Origin: https://evil.example"), 403),
        (upgrade("/", b"Content-Length: 5") + b"hello", 400),
        (upgrade("/versioned", b"Sec-WebSocket-Protocol: v2"), 400),
        (upgrade("/").replace(b"Upgrade: websocket\r\n", b""), 426),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (upgrade("/page"), 200),
    ],
    ids=[
        "404", "version", "key", "method", "foreign origin", "body", "subprotocol", "no upgrade", "plain", "page",
        "head", "upgrade of a page",
    ],
)  # fmt: skip
async def test_hooks_are_not_asked_for_what_is_no_upgrade(data: bytes, status: int, autojump_clock: Clock) -> None:
    """F24: not for requests that are refused anyway, and not for plain ones."""
    seen: list[str] = []
    app = installed()
    app.before_upgrade(noting(seen, "app"))
    app.websocket("/", quiet, before=noting(seen, "route"))
    app.websocket("/versioned", quiet, before=noting(seen, "route"), protocol="v1")
    app.get("/page", page)
    assert (await answer(app, data)).startswith(f"HTTP/1.1 {status} ".encode())
    assert seen == []


async def test_of_one_path_only_the_route_that_is_meant_asks(autojump_clock: Clock) -> None:
    """Two subprotocols, two sets of hooks."""
    seen: list[str] = []
    app = installed()
    app.websocket("/", tell_protocol, protocol="v1", before=noting(seen, "first"))
    app.websocket("/", tell_protocol, protocol="v2", before=noting(seen, "second"))
    assert await first_text(app, subprotocols=["v2"]) == "'v2'"
    assert seen == ["second"]


async def test_raw_routes_ask_too(autojump_clock: Clock) -> None:
    """F17: nothing gets around the application's hooks."""
    seen: list[str] = []
    app = installed()

    async def raw(session: RawWebSocketSession) -> None:
        """Never reached."""
        seen.append("handler")

    async def no(call: Call) -> Response:
        return Response("no", status=403)

    app.before_upgrade(noting(seen, "app"))
    app.websocket_raw("/", raw, before=[noting(seen, "route"), no])
    assert (await refused(app)).status == 403
    assert seen == ["app", "route"]


async def test_what_a_hook_does_disturbs_no_other_connection(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """While one refuses, one fails, one returns nonsense and one hangs, an echo goes on."""
    app = installed()

    async def hook(call: Call) -> object:
        match call.query.get("do", [""])[0]:
            case "refuse":
                return Response("no", status=403)
            case "fail":
                raise RuntimeError("on purpose")
            case "nonsense":
                return 403
            case "hang":
                await trio.sleep_forever()
        return None

    app.before_upgrade(hook)  # type: ignore[type-var]
    app.websocket("/", echo)
    async with serving(app) as (server, connect):
        good = await connect()
        await good.upgrade()
        for deed, status in [("refuse", 403), ("fail", 500), ("nonsense", 500), ("hang", 503)]:
            bad = await connect()
            await bad.send_bytes(upgrade(f"/?do={deed}"))
            await trio.testing.wait_all_tasks_blocked()
            await good.send(Frame.Text(deed))
            assert await good.receive() == Frame.Text(deed)
            assert (await read_all(bad)).startswith(f"HTTP/1.1 {status} ".encode())
            await bad.aclose()
            assert len(server.sessions) == 1
        await good.send(close(1000))
        assert await good.receive() == close(1000)
        await good.aclose()
    assert len(records_above_info(caplog)) == 2


async def test_attributes_belong_to_one_call(autojump_clock: Clock) -> None:
    """What a hook attached for one client, the next one does not have."""
    app = installed()

    @app.before_upgrade
    async def hook(call: Call) -> None:
        assert call.attributes == {}
        assert call.principal is None
        call.attributes["who"] = call.principal = call.query["who"][0]

    @app.websocket("/")
    async def handler(session: WebSocketSession) -> None:
        await session.send(session.call.attributes["who"] + session.call.principal)

    for name in ("ada", "bob"):
        assert await first_text(app, f"/?who={name}") == name * 2


# what a person gets wrong


async def hook_without_call() -> None:
    """A hook that takes nothing."""


async def hook_by_keyword(*, call: Call) -> None:
    """A hook whose call cannot be handed over."""


async def hook_with_more(call: Call, database: object) -> None:
    """A hook that wants what nobody gives it."""


async def hook_with_keyword(call: Call, *, database: object) -> None:
    """A hook that wants what nobody gives it, by keyword."""


async def hook_of_keywords(**call: Any) -> None:
    """A hook that takes nothing by position."""


def sync_hook(call: Call) -> None:
    """Not a coroutine function."""


async def generator_hook(call: Call) -> AsyncIterator[Response]:
    """A hook that yields what it means to return."""
    yield Response("never")


class SyncCallable:
    """An object whose call is not async."""

    def __call__(self, call: Call) -> None:
        """Not a coroutine function."""


MISTAKES: Final = {
    "sync": (sync_hook, r"sync_hook is not async: write `async def sync_hook\(call\)`"),
    "lambda": (lambda call: None, "is not async: write `async def"),
    "sync callable": (SyncCallable(), "is not async"),
    "sync partial": (functools.partial(sync_hook), "is not async"),
    "the class": (SyncCallable, "is not async"),
    "generator": (generator_hook, "generator_hook is an async generator.*instead of yielding"),
    "no parameter": (hook_without_call, r"takes no call: write `async def hook_without_call\(call\)`"),
    "keyword only": (hook_by_keyword, r"takes no call: write `async def hook_by_keyword\(call\)`"),
    "keywords": (hook_of_keywords, "hook_of_keywords"),
    "a second parameter": (hook_with_more, "hook_with_more.*'database'"),
    "a second by keyword": (hook_with_keyword, "hook_with_keyword.*'database'"),
    "a string": ("hook", "an async function, not '"),
    "a response": (Response("no"), "is an async function, not"),
    "None": (None, "a hook is an async function, not None"),
}


@pytest.mark.parametrize(("hook", "fix"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_hook_names_its_fix(hook: Any, fix: str) -> None:
    """At the line where it is made: `before_upgrade`, `before=`, and inside a list."""
    app = installed()
    with pytest.raises(TypeError, match=fix):
        app.before_upgrade(hook)
    with pytest.raises(TypeError, match=fix):
        app.websocket("/", quiet, before=hook)
    with pytest.raises(TypeError, match=fix):
        app.websocket("/", quiet, before=[for_ever, hook])
    with pytest.raises(TypeError, match=fix):
        app.websocket_raw("/", quiet, before=hook)
    app.websocket("/", quiet)  # the path is still free


@final
class Guard:
    """Hooks that are no plain functions."""

    async def method(self, call: Call) -> Response:
        """A bound method."""
        return Response("method", status=403)

    async def __call__(self, call: Call) -> Response:
        """A callable object."""
        return Response("object", status=403)


async def refuse(text: str, call: Call) -> Response:
    """To be bound with `functools.partial`."""
    return Response(text, status=403)


async def with_default(call: Call, text: str = "default") -> Response:
    """A hook with a parameter that nobody has to give."""
    return Response(text, status=403)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (Guard().method, b"method"),
        (Guard(), b"object"),
        (functools.partial(refuse, "partial"), b"partial"),
        (with_default, b"default"),
    ],
    ids=["method", "object", "partial", "default"],
)
async def test_whatever_is_async_and_takes_a_call_is_a_hook(hook: Any, expected: bytes, autojump_clock: Clock) -> None:
    """It is returned unchanged, so that it can be called and tested."""
    app = installed()
    assert app.before_upgrade(hook) is hook
    app.websocket("/", quiet)
    assert (await refused(app)).body == expected


async def test_hooks_are_frozen_with_the_application(autojump_clock: Clock) -> None:
    """A server that asks some clients and not others is nobody's wish."""
    app = installed()
    app.websocket("/", quiet)
    async with handle_websocket_conversation(app, "/"):
        pass
    with pytest.raises(RuntimeError, match="has been served: install and register before that"):
        app.before_upgrade(for_ever)


def test_hooks_need_no_websockets_installed() -> None:
    """They may be registered first thing."""
    assert Application().before_upgrade(for_ever) is for_ever


async def test_an_empty_list_of_hooks_is_none(autojump_clock: Clock) -> None:
    """`before=[]` and `before=()` ask nobody."""
    app = installed()
    app.websocket("/list", tell_protocol, before=[])
    app.websocket("/tuple", tell_protocol, before=())
    assert await first_text(app, "/list") == await first_text(app, "/tuple") == "None"
