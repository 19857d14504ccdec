"""Values instead of frames: the converters there are, one of the test's own, and what a peer may send them."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Final, Optional, TypedDict, final

import attrs
import msgspec
import pytest
import trio
import trio.testing

from tests.support.helpers import application, close, connected, records_above_info
from trioktor import (
    Application,
    CattrsConverter,
    ConnectionBroken,
    ContentConverter,
    ConverterNotFound,
    DeserializationError,
    Frame,
    JsonConverter,
    MsgspecConverter,
    RawWebSocketSession,
    TrioktorError,
    WebSockets,
    WebSocketSession,
)
from trioktor.testing import handle_websocket_conversation

Clock = trio.testing.MockClock
DEEP: Final = 100_000


@final
class StructUser(msgspec.Struct):
    """A user as msgspec has it."""

    name: str
    id: int


@final
@attrs.frozen
class AttrsUser:
    """A user as attrs has it."""

    name: str
    id: int


@final
@dataclasses.dataclass
class DataUser:
    """A user as the standard library has it."""

    name: str
    id: int


@final
class DictUser(TypedDict):
    """A user that is a dict."""

    name: str
    id: int


@final
@attrs.frozen
class Data:
    """A text in a class of its own."""

    text: str


@final
class Bracketed:
    """Ktor's test converter: `Data("s")` is the Text "[s]"."""

    def serialize(self, value: object) -> Frame:
        """Put brackets round it."""
        if not isinstance(value, Data):
            raise TypeError(f"not Data: {value!r}")
        return Frame.Text(f"[{value.text}]")

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """Take the brackets off."""
        if kind is not Data or not (frame.text.startswith("[") and frame.text.endswith("]")):
            raise DeserializationError("no brackets", frame)
        return Data(frame.text[1:-1])

    def is_applicable(self, frame: Frame) -> bool:
        """Text alone."""
        return isinstance(frame, Frame.Text)


@final
class Untouchable:
    """A converter that is not to be called."""

    def serialize(self, value: object) -> Frame:
        """Fail."""
        raise AssertionError("serialize was called")

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """Fail."""
        raise AssertionError("deserialize was called")

    def is_applicable(self, frame: Frame) -> bool:
        """Fail."""
        raise AssertionError("is_applicable was called")


SHIPPED: Final = [JsonConverter, MsgspecConverter, CattrsConverter]
shipped = pytest.mark.parametrize("converter", [kind() for kind in SHIPPED], ids=[kind.__name__ for kind in SHIPPED])
USERS: Final = {
    "msgspec Struct": (MsgspecConverter(), StructUser),
    "msgspec dataclass": (MsgspecConverter(), DataUser),
    "cattrs attrs": (CattrsConverter(), AttrsUser),
    "cattrs dataclass": (CattrsConverter(), DataUser),
    "json dict": (JsonConverter(), dict),
}


def text_of(converter: ContentConverter, value: object) -> str:
    """What a value is said as."""
    frame = converter.serialize(value)
    assert type(frame) is Frame.Text
    assert frame.fin
    return frame.text


def value_of(converter: ContentConverter, text: str | bytes, kind: Any) -> Any:
    """What a message is read as: Text of a str, Binary of bytes."""
    frame = Frame.Text(text) if isinstance(text, str) else Frame.Binary(text)
    assert converter.is_applicable(frame)
    return converter.deserialize(frame, kind)


# ported


@pytest.mark.parametrize("kind", [Data, Any], ids=["T102", "T103"])
async def test_a_converter_of_ones_own_goes_both_ways(kind: Any, autojump_clock: Clock) -> None:
    """T102, T103, F110: `Data("hello")` and the Text "[hello]" are the same; the type is an argument."""

    async def handler(session: WebSocketSession) -> None:
        data = await session.receive_deserialized(Data)
        assert data == Data("hello")
        await session.send_serialized(data)

    app = application(handler, content_converter=Bracketed())
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        await outgoing.send("[hello]")
        assert await incoming.receive() == Frame.Text("[hello]")


async def test_without_a_converter_both_calls_say_so(autojump_clock: Clock) -> None:
    """T104, F111: ConverterNotFound that names the fix; no message is lost by it, and the conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(ConverterNotFound, match=r"WebSockets\(content_converter="):
            await session.send_serialized(Data("hello"))
        with pytest.raises(ConverterNotFound, match=r"WebSockets\(content_converter="):
            await session.receive_deserialized(Data)
        await session.send(await session.receive_text())

    async with handle_websocket_conversation(application(handler), "/") as (incoming, outgoing):
        await outgoing.send("[hello]")
        assert (await incoming.receive()).text == "[hello]"


@pytest.mark.parametrize(
    "converter", [Bracketed(), JsonConverter(), MsgspecConverter()], ids=lambda c: type(c).__name__
)
async def test_a_client_that_closes_at_once_is_a_clean_end(converter: ContentConverter, autojump_clock: Clock) -> None:
    """T105: `receive_deserialized` raises what `receive` does."""
    ended: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(trio.EndOfChannel):
            await session.receive_deserialized(str)
        ended.append("clean")

    async with handle_websocket_conversation(application(handler, content_converter=converter), "/") as conversation:
        conversation.session.close()
    assert ended == ["clean"]


async def test_the_end_may_leave_a_handler_that_reads_values(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """T105: no `try` is needed, for a goodbye as for a cut."""

    async def handler(session: WebSocketSession) -> None:
        while True:
            await session.send_serialized(await session.receive_deserialized(dict))

    app = application(handler, content_converter=JsonConverter())
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        await outgoing.send('{"a":1}')
        assert (await incoming.receive()).text == '{"a":1}'
    async with handle_websocket_conversation(app, "/") as conversation:
        conversation.cut()
    assert records_above_info(caplog) == []


async def test_a_connection_that_breaks_is_a_broken_end(autojump_clock: Clock) -> None:
    """F111: as `receive`, not a DeserializationError."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(ConnectionBroken):
            await session.receive_deserialized(dict)

    app = application(handler, content_converter=JsonConverter())
    async with handle_websocket_conversation(app, "/") as conversation:
        conversation.cut()


async def test_plain_sends_and_receives_never_ask_the_converter(autojump_clock: Clock) -> None:
    """T501: "OK" arrives as it is; so do frames, bytes and what comes back."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("OK")
        await session.send(b"OK")
        await session.send(Frame.Text("OK"))
        await session.outgoing.send("OK")
        assert await session.receive_text() == "hello"
        assert (await session.receive()).text == "hello"
        async for frame in session:
            assert frame.text == "hello"

    app = application(handler, content_converter=Untouchable())
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        for _ in range(3):
            await outgoing.send("hello")
        for expected in [Frame.Text("OK"), Frame.Binary(b"OK"), Frame.Text("OK"), Frame.Text("OK")]:
            assert await incoming.receive() == expected


@shipped
@pytest.mark.parametrize("kind", [None, Optional[int], int | None], ids=str)  # noqa: UP045
async def test_null_goes_both_ways(converter: ContentConverter, kind: Any, autojump_clock: Clock) -> None:
    """T502 to T505: None is the Text `null`, and comes back as None."""

    async def handler(session: WebSocketSession) -> None:
        assert await session.receive_deserialized(kind) is None
        await session.send_serialized(None)

    app = application(handler, content_converter=converter)
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        await outgoing.send("null")
        assert await incoming.receive() == Frame.Text("null")


@pytest.mark.parametrize(("converter", "kind"), USERS.values(), ids=USERS.keys())
async def test_a_user_goes_both_ways_a_hundred_times(
    converter: ContentConverter, kind: Any, autojump_clock: Clock
) -> None:
    """T502 to T505, F112: the Text is exactly `{"name":"user","id":123}`, and back it is equal."""
    user = kind(name="user", id=123)

    async def handler(session: WebSocketSession) -> None:
        for _ in range(100):
            received = await session.receive_deserialized(kind)
            assert type(received) is kind
            assert received == user
            await session.send_serialized(received)

    app = application(handler, content_converter=converter)
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        for _ in range(100):
            await outgoing.send('{"name":"user","id":123}')
            assert await incoming.receive() == Frame.Text('{"name":"user","id":123}')


@pytest.mark.parametrize(("converter", "kind"), USERS.values(), ids=USERS.keys())
def test_a_missing_user_is_none_where_that_is_asked_for(converter: ContentConverter, kind: Any) -> None:
    """T502 to T505: `null` is no user, but may be one or none."""
    assert value_of(converter, "null", kind | None) is None
    assert value_of(converter, '{"name":"user","id":123}', kind | None) == kind(name="user", id=123)
    with pytest.raises(DeserializationError):
        value_of(converter, "null", kind)


# what is read


@shipped
@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("1", int, 1),
        ("-7", int, -7),
        ("12345678901234567", int, 12345678901234567),
        ("1", float, 1),
        ("1.5", float, 1.5),
        ("true", bool, True),
        ("false", bool, False),
        ('"täxt 😀"', str, "täxt 😀"),
        ('"\\ud83d\\ude00"', str, "😀"),
        ('""', str, ""),
        ("null", None, None),
        (' [1, "a", null] ', list, [1, "a", None]),
        ('{"a": {"b": [1]}}', dict, {"a": {"b": [1]}}),
        ('["a"]', list[str], ["a"]),
        ("[]", list[str], []),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("{}", dict[str, int], {}),
        ('[1, "a"]', list[Any], [1, "a"]),
        ('{"a": [1]}', dict[str, Any], {"a": [1]}),
        ('{"a": [1]}', dict[str, list[int]], {"a": [1]}),
        ("null", str | None, None),
        ('"a"', str | None, "a"),
        ("1", int | str, 1),
        ('"a"', int | str, "a"),
        ("[1]", list[int] | None, [1]),
        ("null", dict[str, int] | None, None),
        ('{"a": [1]}', Any, {"a": [1]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_binary", [False, True], ids=["Text", "Binary"])
def test_plain_values_are_read(
    converter: ContentConverter, text: str, kind: Any, expected: object, is_binary: bool
) -> None:
    """F112: generics and unions too, from Text and from Binary frames, by every converter alike."""
    value = value_of(converter, text.encode() if is_binary else text, kind)
    assert value == expected
    assert isinstance(value, bool) == isinstance(expected, bool)


@pytest.mark.parametrize("converter", [JsonConverter(), MsgspecConverter()], ids=["JsonConverter", "MsgspecConverter"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("true", int),
        ("false", float),
        ("1", bool),
        ("0", bool),
        ("1.5", int),
        ("1", str),
        ('"1"', int),
        ('"true"', bool),
        ("null", int),
        ("null", str),
        ("[]", dict),
        ("{}", list),
        ("0", type(None)),
        ('""', type(None)),
        ('"a"', list[str]),
        ('"a"', dict[str, int]),
        ("1", dict[str, int]),
        ("[]", dict[str, int]),
        ("true", int | str),
        ("[1]", int | None),
        ("1", list[int] | None),
        ("{}", list[int] | None),
        ("false", str | None),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_an_error(converter: ContentConverter, text: str, kind: Any) -> None:
    """F111: nothing is converted on the quiet; a bool is no number, though Python has it so."""
    frame = Frame.Text(text)
    with pytest.raises(DeserializationError) as caught:
        converter.deserialize(frame, kind)
    assert caught.value.frame is frame
    assert isinstance(caught.value, TrioktorError)


MALFORMED: Final = {
    "empty": "",
    "blank": "  ",
    "a word": "hello",
    "no end": '{"a": 1',
    "too much": "1 2",
    "single quotes": "{'a': 1}",
    "trailing comma": "[1,]",
    "no value": '{"a"}',
    "number for a key": "{1: 2}",
    "a comment": "1 // one",
    "a line break in a string": '"a\nb"',
    "a NUL": "\0",
    "a byte order mark": "\ufeff1",
    "a lone backslash": '"\\"',
    "an endless number": "1" * 100_000,
    "deep lists": "[" * DEEP,
    "deep lists with their ends": "[" * DEEP + "]" * DEEP,
    "deep dicts": '{"a":' * DEEP,
    "deep and mixed": '[{"a":' * (DEEP // 2),
}


@shipped
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("kind", [list, dict, Any, int | None], ids=str)
def test_what_is_no_json_is_an_error(converter: ContentConverter, text: str, kind: Any) -> None:
    """F111: nested too deep included; the error is short, has the frame, and says why."""
    frame = Frame.Text(text)
    with pytest.raises(DeserializationError) as caught:
        converter.deserialize(frame, kind)
    assert caught.value.frame is frame
    assert len(str(caught.value)) < 500


@shipped
@pytest.mark.parametrize("data", [b"\xff", b'"\xe9"', b"\xed\xa0\x80", b"", b"\x00\x01\x02", b"\x80[" * 100])
def test_binary_that_is_no_json_is_an_error(converter: ContentConverter, data: bytes) -> None:
    """Binary frames are not checked for UTF-8 before they get here."""
    with pytest.raises(DeserializationError) as caught:
        converter.deserialize(Frame.Binary(data), str)
    assert caught.value.frame == Frame.Binary(data)


@shipped
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NaN", float),
        ("Infinity", float),
        ("-Infinity", float),
        ("1e999", float),
        ("[NaN]", list),
        ('"\\ud800"', str),
        ('"\\udc00\\ud800"', str),
        ('{"\\ud800": 1}', dict),
    ],
    ids=str,
)
def test_what_is_read_can_be_said_again(converter: ContentConverter, text: str, kind: Any) -> None:
    """No message makes an echo of values fail: it is refused on its way in, or can be sent back."""
    try:
        value = value_of(converter, text, kind)
    except DeserializationError:
        return
    assert value_of(converter, text_of(converter, value), kind) == value


@pytest.mark.parametrize(("converter", "kind"), list(USERS.values())[:4], ids=list(USERS)[:4])
@pytest.mark.parametrize(
    "text",
    [
        '{"name":"user"}',
        '{"id":123}',
        "{}",
        "[]",
        '["user",123]',
        "null",
        "1",
        '"user"',
        '{"name":"user","id":"x"}',
        '{"name":"user","id":null}',
        '{"name":"user","id":[]}',
    ],
)
def test_what_is_no_user_is_an_error(converter: ContentConverter, kind: Any, text: str) -> None:
    """F111: missing fields, other types, other shapes; the cause is the library's own error."""
    frame = Frame.Text(text)
    with pytest.raises(DeserializationError) as caught:
        converter.deserialize(frame, kind)
    assert caught.value.frame is frame
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "kind",
    [StructUser, AttrsUser, DataUser, DictUser, Data, tuple, set, bytes, complex, object(), "int", list[DataUser],
     dict[str, DataUser], DataUser | None, list[int] | DataUser, tuple[int, ...], set[int]],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("text", ["{}", "[]", '{"name":"user","id":123}'])
def test_json_alone_makes_no_classes(kind: Any, text: str) -> None:
    """F112: a TypeError that names the other converters: the mistake is the handler's, not the peer's."""
    with pytest.raises(TypeError, match="use MsgspecConverter or CattrsConverter"):
        value_of(JsonConverter(), text, kind)


def test_json_alone_gives_any_value_to_who_asks_for_an_object() -> None:
    """`object` is as good as Any."""
    assert value_of(JsonConverter(), "[1]", object) == [1]


def test_other_parsers_may_be_given() -> None:
    """`dumps` and `loads`: str or bytes out, Text and Binary in."""
    seen: list[str | bytes] = []

    def loads(text: str | bytes) -> Any:
        seen.append(text)
        return json.loads(text)

    converter = JsonConverter(dumps=lambda value: msgspec.json.encode(value), loads=loads)
    assert text_of(converter, {"a": [1, "ä"]}) == '{"a":[1,"ä"]}'
    assert value_of(converter, '{"a":1}', dict) == value_of(converter, b'{"a":1}', dict) == {"a": 1}
    assert seen == ['{"a":1}', b'{"a":1}']
    assert text_of(JsonConverter(dumps=repr), [1]) == "[1]"


def test_a_configured_cattrs_converter_may_be_given() -> None:
    """Hooks and all."""
    from cattrs.preconf.json import make_converter

    inner = make_converter(forbid_extra_keys=True)
    text = '{"name":"user","id":123,"more":1}'
    assert value_of(CattrsConverter(), text, AttrsUser) == AttrsUser("user", 123)
    with pytest.raises(DeserializationError):
        value_of(CattrsConverter(inner), text, AttrsUser)


@shipped
@pytest.mark.parametrize("frame", [Frame.Close(), Frame.Ping(b"1"), Frame.Pong(b"1")], ids=repr)
def test_control_frames_hold_no_values(converter: ContentConverter, frame: Frame) -> None:
    """F110: `is_applicable` is for Text and Binary."""
    assert not converter.is_applicable(frame)
    assert converter.is_applicable(Frame.Text("1"))
    assert converter.is_applicable(Frame.Binary(b"1"))
    assert isinstance(converter, ContentConverter)


# what is said


@shipped
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, True, None]}, '{"a":[1,2.5,true,null]}'),
        ("täxt 😀", '"täxt 😀"'),
        ('a "quoted"\n\\', '"a \\"quoted\\"\\n\\\\"'),
        ([], "[]"),
        (0, "0"),
        (False, "false"),
        ("", '""'),
    ],
    ids=repr,
)
def test_values_are_said_compactly(converter: ContentConverter, value: object, text: str) -> None:
    """F112: one Text frame, no blanks, UTF-8 as it is."""
    assert text_of(converter, value) == text


@pytest.mark.parametrize(
    ("converter", "value"),
    [
        (JsonConverter(), object()),
        (JsonConverter(), DataUser("user", 1)),
        (JsonConverter(), {1, 2}),
        (JsonConverter(), b"bytes"),
        (JsonConverter(), float("nan")),
        (JsonConverter(), float("inf")),
        (JsonConverter(), {(1, 2): 3}),
        (MsgspecConverter(), object()),
        (MsgspecConverter(), "\ud800"),
        (CattrsConverter(), object()),
        (CattrsConverter(), float("nan")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_cannot_be_said_is_an_error_at_the_call(
    converter: ContentConverter, value: object, autojump_clock: Clock
) -> None:
    """F111: nothing of it goes out, and the conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises((TypeError, ValueError)):
            await session.send_serialized(value)
        await session.send_serialized("fine")

    app = application(handler, content_converter=converter)
    async with handle_websocket_conversation(app, "/") as (incoming, _):
        assert (await incoming.receive()).text == '"fine"'


@pytest.mark.parametrize("made", [None, 5, object(), {"a": 1}], ids=["None", "a number", "an object", "a dict"])
async def test_a_converter_that_makes_no_frame_is_an_error_at_the_call(made: Any, autojump_clock: Clock) -> None:
    """F110: what it returns is sent as by `send`, which takes frames."""

    @final
    class Wrong:
        def serialize(self, value: object) -> Frame:
            return made  # type: ignore[no-any-return]

        def deserialize(self, frame: Frame, kind: Any) -> Any:
            return None

        def is_applicable(self, frame: Frame) -> bool:
            return True

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(TypeError):
            await session.send_serialized("x")
        await session.send("fine")

    async with handle_websocket_conversation(application(handler, content_converter=Wrong()), "/") as (incoming, _):
        assert (await incoming.receive()).text == "fine"


# a message that is not what it has to be


BAD: Final = {
    "no JSON": (JsonConverter(), dict, Frame.Text("hello")),
    "another type": (JsonConverter(), dict, Frame.Text("[]")),
    "nested too deep": (JsonConverter(), list, Frame.Text("[" * DEEP)),
    "Binary": (JsonConverter(), dict, Frame.Binary(b"\xff\xfe")),
    "no Struct": (MsgspecConverter(), StructUser, Frame.Text('{"name":1}')),
    "deep for msgspec": (MsgspecConverter(), Any, Frame.Text("[" * DEEP)),
    "no attrs class": (CattrsConverter(), AttrsUser, Frame.Text('{"name":1}')),
    "no brackets": (Bracketed(), Data, Frame.Text("hello")),
    "not applicable": (Bracketed(), Data, Frame.Binary(b"[hello]")),
    "escape sequences": (JsonConverter(), dict, Frame.Text('"\x1b[31m"\x9b')),
    "a long text": (JsonConverter(), dict, Frame.Text("a" * 500_000)),
}
bad = pytest.mark.parametrize(("converter", "kind", "frame"), BAD.values(), ids=BAD.keys())


@bad
async def test_a_bad_message_that_escapes_a_handler_is_the_peers_doing(
    converter: ContentConverter, kind: Any, frame: Frame, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F111: Close 1007 without a text; one line at INFO, short and printable, and no traceback."""
    caplog.set_level(logging.INFO, logger="trioktor")

    async def handler(session: WebSocketSession) -> None:
        await session.receive_deserialized(kind)

    async with connected(handler, content_converter=converter) as (client, _):
        await client.send(frame)
        assert await client.receive() == close(1007)
        await client.send(close(1007))
        assert await client.receive() is None
    assert records_above_info(caplog) == []
    [record] = [record for record in caplog.records if "DeserializationError" in record.getMessage()]
    assert record.exc_info is None
    assert len(record.getMessage()) < 1000
    assert record.getMessage().isprintable()


@bad
async def test_a_bad_message_that_is_caught_is_consumed(
    converter: ContentConverter, kind: Any, frame: Frame, autojump_clock: Clock
) -> None:
    """F111: the error has the message in `frame`; the next one is the next."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(DeserializationError) as caught:
            await session.receive_deserialized(kind)
        assert caught.value.frame == frame
        await session.send("what was that? " + await session.receive_text())

    app = application(handler, content_converter=converter)
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        await outgoing.send(frame)
        await outgoing.send("next")
        assert (await incoming.receive()).text == "what was that? next"


async def test_a_bad_message_in_a_task_beside_the_handler_is_the_peers_doing_too(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F111: by the same rules as the handler's own, from `start_soon` and in groups."""

    async def reading(session: WebSocketSession) -> None:
        await session.receive_deserialized(dict)

    async def handler(session: WebSocketSession) -> None:
        session.start_soon(reading, session)
        await trio.sleep_forever()

    async def grouping(session: WebSocketSession) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading, session)

    for function in (handler, grouping):
        async with connected(function, content_converter=JsonConverter()) as (client, _):
            await client.send(Frame.Text("hello"))
            assert await client.receive() == close(1007)
    assert records_above_info(caplog) == []


async def test_a_bad_message_beside_a_failure_is_a_failure(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The worst of a group counts: 1011, and logged."""

    async def handler(session: WebSocketSession) -> None:
        error = DeserializationError("not that", await session.receive())
        raise ExceptionGroup("both", [error, RuntimeError("on purpose")])

    async with connected(handler, expect_failure=True, content_converter=JsonConverter()) as (client, _):
        await client.send(Frame.Text("hello"))
        assert await client.receive() == close(1011)
    [record] = records_above_info(caplog)
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), ZeroDivisionError("x")], ids=repr)
async def test_a_converter_that_fails_otherwise_is_a_failure(
    error: Exception, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of its own is not put down to the peer: 1011 without a text, logged once."""

    @final
    class Failing:
        def serialize(self, value: object) -> Frame:
            raise error

        def deserialize(self, frame: Frame, kind: Any) -> Any:
            raise error

        def is_applicable(self, frame: Frame) -> bool:
            return True

    async def handler(session: WebSocketSession) -> None:
        await session.receive_deserialized(dict)

    async with connected(handler, expect_failure=True, content_converter=Failing()) as (client, _):
        await client.send(Frame.Text("hello"))
        assert await client.receive() == close(1011)
    assert len(records_above_info(caplog)) == 1


@pytest.mark.parametrize("converter", [JsonConverter(), CattrsConverter()], ids=["JsonConverter", "CattrsConverter"])
async def test_asking_for_what_a_converter_cannot_make_is_the_handlers_mistake(
    converter: ContentConverter, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An unsupported type is a bug here, whatever the peer sent: 1011 and a traceback, not 1007 and a shrug."""

    @final
    class Opaque:
        def __init__(self, *, never: Callable[[], None]) -> None:
            raise AssertionError("never made")

    async def handler(session: WebSocketSession) -> None:
        await session.receive_deserialized(Opaque)

    async with connected(handler, expect_failure=True, content_converter=converter) as (client, _):
        await client.send(Frame.Text("{}"))
        assert await client.receive() == close(1011)
    [record] = records_above_info(caplog)
    assert record.exc_info is not None


# where a converter is configured


async def test_each_route_may_have_its_own(autojump_clock: Clock) -> None:
    """Overrides replace the installed one, None takes it away."""
    app = Application()
    app.install(WebSockets(content_converter=JsonConverter()))

    async def say(session: WebSocketSession) -> None:
        try:
            await session.send_serialized(Data("hello") if session.call.path == "/own" else ["hello"])
        except ConverterNotFound:
            await session.send("none")

    app.websocket("/installed", say)
    app.websocket("/own", say, content_converter=Bracketed())
    app.websocket("/none", say, content_converter=None)
    for path, expected in [("/installed", '["hello"]'), ("/own", "[hello]"), ("/none", "none")]:
        async with handle_websocket_conversation(app, path) as (incoming, _):
            assert (await incoming.receive()).text == expected


def test_a_bad_override_is_an_error_at_registration() -> None:
    """As in `install`."""
    app = Application()
    app.install(WebSockets())

    async def handler(session: WebSocketSession) -> None:
        """Never run."""

    converter: Any = JsonConverter
    with pytest.raises(ValueError, match=r"^content_converter "):
        app.websocket("/", handler, content_converter=converter)


async def test_the_clients_side_has_no_converter(autojump_clock: Clock) -> None:
    """T104: the application's is the server's; the test's own session says that it has none."""

    async def handler(session: WebSocketSession) -> None:
        await session.send_serialized({"a": 1})
        assert await session.receive_deserialized(int) == 7

    app = application(handler, content_converter=JsonConverter())
    async with handle_websocket_conversation(app, "/") as conversation:
        with pytest.raises(ConverterNotFound):
            await conversation.session.send_serialized(7)
        with pytest.raises(ConverterNotFound):
            await conversation.session.receive_deserialized(dict)
        assert await conversation.session.receive_text() == '{"a":1}'
        await conversation.session.send("7")


def test_raw_sessions_have_frames_and_no_values() -> None:
    """F17: a converter is for messages."""
    assert not hasattr(RawWebSocketSession, "send_serialized")
    assert not hasattr(RawWebSocketSession, "receive_deserialized")


async def test_many_tasks_share_a_converter(autojump_clock: Clock) -> None:
    """W-23: values without casts, from a hundred clients at once; each gets its own back."""

    async def handler(session: WebSocketSession) -> None:
        while True:
            user = await session.receive_deserialized(StructUser)
            await session.send_serialized(StructUser(user.name.upper(), user.id + 1))

    app = application(handler, content_converter=MsgspecConverter())

    async def client(number: int) -> None:
        async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
            for turn in range(10):
                await outgoing.send(f'{{"name":"u{number}","id":{turn}}}')
                assert (await incoming.receive()).text == f'{{"name":"U{number}","id":{turn + 1}}}'

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(client, number)


@pytest.mark.parametrize(("kind", "module"), [(MsgspecConverter, "msgspec"), (CattrsConverter, "cattrs")])
def test_a_converter_says_which_extra_it_needs(
    kind: Callable[[], ContentConverter], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how to get it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'trioktor\[{module}\]'"):
        kind()
