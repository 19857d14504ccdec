"""The opening handshake of a client: what is asked, and which answers are one to it."""

from __future__ import annotations

import base64

import pytest

from trioktor.http.asking import Handshake
from trioktor.http.handshake import accept_token
from trioktor.http.headers import Headers
from trioktor.http.opening import check_answer, check_client_headers, check_subprotocols, new_key, opening_headers

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_each_key_is_sixteen_bytes_of_its_own() -> None:
    """RFC 6455 §4.1, item 7."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


# what is asked


def test_a_request_is_a_websockets_by_four_headers() -> None:
    """Nothing that is not wanted."""
    assert opening_headers(KEY) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]


def test_what_is_offered_is_said_behind_them() -> None:
    """The origin, even an empty one, subprotocols in their order, extensions."""
    assert opening_headers(KEY, subprotocols=["b", "a"], extensions="x; y, z", origin="")[4:] == [
        ("Origin", ""),
        ("Sec-WebSocket-Protocol", "b, a"),
        ("Sec-WebSocket-Extensions", "x; y, z"),
    ]


OURS = [
    "Connection", "Content-Length", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "Transfer-Encoding", "Upgrade",
]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_headers_of_the_handshake_are_not_for_others_to_write(name: str) -> None:
    """In whatever case; the error says which."""
    for spelled in (name, name.upper(), name.lower()):
        with pytest.raises(ValueError, match=f"the header {spelled} is written by connect"):
            check_client_headers([("X", "y"), (spelled, "x")])


@pytest.mark.parametrize(
    "headers", [[], [("Host", "a")], [("X", "a"), ("x", "b")], [("Origin", "a"), ("Cookie", "b=c")]]
)
def test_other_headers_are_ones_own(headers: list[tuple[str, str]]) -> None:
    """The host, too, once."""
    check_client_headers(headers)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([("Host", "a"), ("HOST", "a")], "one Host header"),
        ([("X", "a\r\nY: b")], "control character"),
        ([("a b", "x")], "not a header name"),
        ([("X", "x ")], "blank"),
    ],
)
def test_headers_that_cannot_be_written_are_refused(headers: list[tuple[str, str]], error: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=error):
        check_client_headers(headers)


@pytest.mark.parametrize(
    ("names", "offered"), [([], ()), ("v1", ("v1",)), (["v2", "v1"], ("v2", "v1")), (("a", "A"), ("a", "A"))]
)
def test_subprotocols_are_names(names: str | list[str], offered: tuple[str, ...]) -> None:
    """One, or several in their order; their case counts."""
    assert check_subprotocols(names) == offered


@pytest.mark.parametrize("names", [[""], ["a b"], ["a,b"], "é", ["a", "b", "a"]])
def test_what_is_no_subprotocol_is_refused(names: str | list[str]) -> None:
    """RFC 6455 §4.1, item 10: a token, and each once."""
    with pytest.raises(ValueError, match="subprotocols"):
        check_subprotocols(names)


# what is answered


def answer(**replace: list[str]) -> Handshake:
    """A good 101, some of whose headers are replaced."""
    headers = {
        "Upgrade": ["websocket"],
        "Connection": ["Upgrade"],
        "Sec-WebSocket-Accept": [accept_token(KEY)],
        **{name.replace("_", "-"): values for name, values in replace.items()},
    }
    pairs = [(name.encode(), value.encode("latin-1")) for name, values in headers.items() for value in values]
    return Handshake(101, Headers(pairs))


@pytest.mark.parametrize(
    ("good", "chosen"),
    [
        (answer(), None),
        (answer(Upgrade=["WebSocket"], Connection=["keep-alive, UPGRADE"]), None),
        (answer(Connection=["keep-alive", "upgrade"]), None),
        (answer(Sec_WebSocket_Protocol=["v1"]), "v1"),
        (answer(Sec_WebSocket_Protocol=["v2"]), "v2"),
    ],
)
def test_a_good_answer_gives_the_subprotocol(good: Handshake, chosen: str | None) -> None:
    """One of those that were offered, or none."""
    assert check_answer(good, KEY, ["v2", "v1"]) == chosen


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (answer(Upgrade=[]), "Upgrade is not websocket"),
        (answer(Upgrade=["h2c"]), "Upgrade is not websocket"),
        (answer(Upgrade=["websocket, h2c"]), "Upgrade is not websocket"),
        (answer(Upgrade=["websocket", "websocket"]), "Upgrade is not websocket"),
        (answer(Connection=[]), "Connection does not name Upgrade"),
        (answer(Connection=["close"]), "Connection does not name Upgrade"),
        (answer(Sec_WebSocket_Accept=[]), "Accept is not what belongs to our key"),
        (answer(Sec_WebSocket_Accept=[accept_token(KEY).lower()]), "Accept is not what belongs to our key"),
        (answer(Sec_WebSocket_Accept=[accept_token(KEY)] * 2), "Accept is not what belongs to our key"),
        (answer(Sec_WebSocket_Protocol=["v9"]), "the subprotocol 'v9' was not offered"),
        (answer(Sec_WebSocket_Protocol=["V1"]), "the subprotocol 'V1' was not offered"),
        (answer(Sec_WebSocket_Protocol=["v1, v2"]), "the subprotocol 'v1, v2' was not offered"),
        (answer(Sec_WebSocket_Protocol=["v1", "v1"]), "the subprotocol 'v1, v1' was not offered"),
        (answer(Sec_WebSocket_Protocol=[""]), "the subprotocol '' was not offered"),
    ],
)
def test_an_answer_to_something_else_is_none(bad: Handshake, error: str) -> None:
    """RFC 6455 §4.1: each rule by itself; the error says which."""
    with pytest.raises(ValueError, match=error):
        check_answer(bad, KEY, ["v1", "v2"])


def test_what_a_server_says_wrongly_is_not_shown_at_length() -> None:
    """Nor raw."""
    with pytest.raises(ValueError, match="was not offered") as error:
        check_answer(answer(Sec_WebSocket_Protocol=["\x1b" + "x" * 5000]), KEY, [])
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()
