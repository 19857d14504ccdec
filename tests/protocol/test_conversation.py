"""The pure conversation: what comes out of bytes, what is answered by itself, and how it ends, without Trio."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.extensions import deflated
from tests.support.helpers import client_bytes, masked
from tests.support.pair import Pair
from trioktor.protocol.close import CloseReason
from trioktor.protocol.control import MAX_PONGS
from trioktor.protocol.conversation import TURN, Conversation
from trioktor.protocol.deflate import PerMessageDeflate
from trioktor.protocol.extension_header import ExtensionHeader
from trioktor.protocol.extensions import Extension, coded_limit
from trioktor.protocol.frames import Frame
from trioktor.protocol.halves import Ours, Theirs
from trioktor.protocol.raw_conversation import RawConversation

HELLO = Frame.Text("hello")


def received(conversation: Conversation, data: bytes) -> list[Frame]:
    """The messages that bytes give."""
    return [frame for frame in conversation.receive(data) if frame is not None]


def said(conversation: Conversation) -> bytes:
    """What it has to say by itself."""
    pieces: list[bytes] = []
    conversation.control.take(conversation.serializer, pieces)
    return b"".join(pieces)


def inflater() -> Extension:
    """What reads messages that are compressed one by one."""
    agreed = PerMessageDeflate(client_no_context_takeover=True).negotiate(ExtensionHeader("permessage-deflate"))
    assert agreed is not None
    return agreed[1]


SEEN: list[tuple[str, bytes, list[Frame], bytes, str, int | None]] = [
    # what comes, what is given, what is answered, the word for the state, the reason's code
    ("nothing", b"", [], b"", "OPEN", None),
    ("a message", client_bytes(HELLO), [HELLO], b"", "OPEN", None),
    ("a Ping", client_bytes(Frame.Ping(b"?"), HELLO), [HELLO], b"\x8a\x01?", "OPEN", None),
    ("a stranger's Pong", client_bytes(Frame.Pong(b"?")), [], b"", "OPEN", None),
    ("a Close", client_bytes(HELLO, Frame.Close(CloseReason(1000))), [HELLO], b"", "ANSWERING", 1000),
    ("an empty Close", client_bytes(Frame.Close()), [], b"", "ANSWERING", 1005),
    ("what stands behind a Close", client_bytes(Frame.Close(), HELLO) + b"\xff", [], b"", "ANSWERING", 1005),
    ("a Ping before a Close", client_bytes(Frame.Ping(b"?"), Frame.Close()), [], b"\x8a\x01?", "ANSWERING", 1005),
    ("a violation", client_bytes(HELLO) + b"\xff\xff", [HELLO], b"", "FAILING", 1002),
    ("bad text", client_bytes(HELLO) + masked(0x81, b"\xff"), [HELLO], b"", "FAILING", 1007),
    ("bad text in a frame's beginning", masked(0x81, b"\xff" * 200)[:100], [], b"", "FAILING", 1007),
    ("too long a frame", b"\x82\xff" + (1 << 40).to_bytes(8, "big"), [], b"", "FAILING", 1009),
    ("a Close that may not be sent", masked(0x88, b"\x03\xed"), [], b"", "FAILING", 1002),
    ("too many fragments", masked(0x01, b"") + masked(0x00, b"") * 30, [], b"", "FAILING", 1008),
    (
        "fragments",
        masked(0x01, b"hel") + client_bytes(Frame.Ping(b"")) + masked(0x80, b"lo"),
        [HELLO],
        b"\x8a\x00",
        "OPEN",
        None,
    ),
]


@pytest.mark.parametrize(
    ("data", "messages", "answer", "word", "code"), [row[1:] for row in SEEN], ids=[row[0] for row in SEEN]
)
@pytest.mark.parametrize("cut", [1, 3, 1 << 20])
def test_what_comes_gives_what_is_seen(
    data: bytes, messages: list[Frame], answer: bytes, word: str, code: int | None, cut: int
) -> None:
    """Messages, answers and the end, however the bytes are cut; nothing is ever raised."""
    conversation = Conversation(max_frame_size=1000, max_fragments=20)
    found = []
    for start in range(0, len(data), cut):
        if conversation.closing.is_over:
            break
        found += received(conversation, data[start : start + cut])
    reason = conversation.closing.reason
    assert (messages, word, code) == (found, conversation.closing.word, None if reason is None else reason.code)
    assert answer == said(conversation)
    assert conversation.has_news == (word != "OPEN" or bool(answer) or data[:1] == b"\x8a")


WIRE = st.lists(
    st.one_of(
        st.builds(lambda text: client_bytes(Frame.Text(text)), st.text(max_size=40)),
        st.builds(lambda data: client_bytes(Frame.Binary(data)), st.binary(max_size=300)),
        st.builds(lambda data: client_bytes(Frame.Ping(data)), st.binary(max_size=20)),
        st.builds(masked, st.sampled_from([0x01, 0x00, 0x80, 0x02, 0x88, 0x8A, 0xC1]), st.binary(max_size=200)),
        st.binary(max_size=5),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=300)
@given(data=WIRE, cuts=st.lists(st.integers(0, 1500), max_size=8), raw=st.booleans(), pieces=st.booleans())
def test_any_cut_of_the_bytes_gives_the_same(data: bytes, cuts: list[int], raw: bool, pieces: bool) -> None:
    """Messages, answers, and where it stands; in pieces their bytes are the same."""

    def seen(chunks: list[bytes]) -> tuple[Any, ...]:
        conversation = (RawConversation if raw else Conversation)(max_frame_size=1000, max_fragments=20)
        if pieces and not raw:
            conversation.stream()
        found: list[Frame] = []
        for chunk in chunks:
            if not conversation.closing.is_over:
                found += received(conversation, chunk)
        closing = conversation.closing
        given: Any = found
        if pieces and not raw:
            given = b"".join(frame.data + b"|" * frame.fin for frame in found)
            if closing.theirs is Theirs.FAILED:  # a part of a message that turned out to be bad may have been given
                given = None
        return given, said(conversation), closing.ours, closing.theirs, closing.reason, closing.received

    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    assert seen([data]) == seen([data[start:end] for start, end in zip([0, *ends], ends, strict=False)])


SNOW = "\N{SNOWMAN}" * 10


@pytest.mark.parametrize("cut", range(1, 36))
def test_one_text_after_the_other_may_be_cut_anywhere(cut: int) -> None:
    """In the middle of a character, too: what was seen of one says nothing of the next."""
    conversation = Conversation()
    assert received(conversation, masked(0x01, b"fragm") + masked(0x80, b"ents")) == [Frame.Text("fragments")]
    wire = client_bytes(Frame.Text(SNOW))
    for _ in range(3):
        assert received(conversation, wire[:cut]) == []
        assert received(conversation, wire[cut:]) == [Frame.Text(SNOW)]
    assert not conversation.closing.is_over


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("cut", range(1, 36))
def test_pieces_may_be_wanted_in_the_middle_of_a_character(cut: int, fragments: int) -> None:
    """What was judged by then is given as well."""
    data = SNOW.encode()
    wire = masked(0x81, data) if fragments == 1 else masked(0x01, data[:10]) + masked(0x80, data[10:])
    conversation = Conversation()
    assert received(conversation, wire[:cut]) == []
    conversation.stream()
    pieces = received(conversation, wire[cut:] + client_bytes(HELLO))
    assert b"".join(piece.data for piece in pieces) == data + b"hello"
    assert not conversation.closing.is_over


@pytest.mark.parametrize(("size", "word"), [(coded_limit(100) - 60, "OPEN"), (coded_limit(100) - 59, "FAILING")])
def test_what_came_before_pieces_were_wanted_counts_for_the_limit_of_what_an_extension_reads(
    size: int, word: str
) -> None:
    """Such a message is joined all the same."""
    conversation = Conversation(max_frame_size=100, extensions=(inflater(),))
    assert received(conversation, masked(0x42, bytes(60))) == []
    conversation.stream()
    assert received(conversation, masked(0x00, bytes(size))) == []
    assert conversation.closing.word == word


def test_what_is_inflated_may_be_any_bytes() -> None:
    """Only text is judged."""
    conversation = Conversation(extensions=(inflater(),))
    assert received(conversation, masked(0xC2, deflated(b"\xff\xfe"))) == [Frame.Binary(b"\xff\xfe")]
    assert received(conversation, masked(0xC1, deflated(b"\xff\xfe"))) == []
    assert conversation.closing.reason == CloseReason(1007)


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("masking", [False, True])
def test_a_client_masks_and_a_server_that_is_told_to(client: bool, masking: bool) -> None:
    """What it says by itself, too."""
    conversation = Conversation(client=client, masking=masking)
    conversation.send_control(Frame.Pong(b""))
    assert said(conversation)[:2] == (b"\x8a\x80" if client or masking else b"\x8a\x00")


def test_a_suspended_iterator_holds_the_rest_back() -> None:
    """Nothing is parsed before it is asked for: what stands behind is judged when it is reached."""
    conversation = Conversation()
    frames = conversation.receive(client_bytes(HELLO, Frame.Ping(b"?")) + b"\xff\xff")
    news = [(frame, conversation.has_news) for frame in frames]
    assert [(HELLO, False)] == news
    assert conversation.has_news
    assert (Ours.OPEN, Theirs.FAILED) == (conversation.closing.ours, conversation.closing.theirs)


def test_others_have_a_turn_among_many_control_frames() -> None:
    """As often as among messages; and of many Pings the last are answered."""
    conversation = Conversation()
    data = b"".join(client_bytes(Frame.Ping(b"%d" % number)) for number in range(3 * (TURN + 1)))
    assert [None] * 3 == list(conversation.receive(data))
    assert MAX_PONGS == conversation.control.take(conversation.serializer, [])


def test_others_have_a_turn_among_messages_that_inflate() -> None:
    """What they grow to counts, not only how many they are; also where nobody holds the reader back."""
    conversation = Conversation(extensions=(inflater(),))
    work, steps = 0, []
    for message in conversation.receive(masked(0xC2, deflated(bytes(30_000))) * 200):
        work += 0 if message is None else len(message.data)
        if message is None:
            steps.append(work)
            work = 0
    assert 200 * 30_000 == sum(steps) + work
    assert max(*steps, work) <= (1 << 18) + 30_000


def test_others_have_a_turn_in_pieces_too() -> None:
    """The same while messages are given in pieces."""
    conversation = Conversation()
    conversation.stream()
    data = b"".join(client_bytes(Frame.Ping(b"%d" % number)) for number in range(2 * (TURN + 1)))
    assert [None] * 2 == list(conversation.receive(data))


def test_control_frames_are_dropped_when_our_half_has_ended() -> None:
    """Behind our Close nothing may stand (RFC 6455 §5.5.1)."""
    conversation = Conversation()
    conversation.closing.close(CloseReason(1000))
    conversation.send_control(Frame.Ping(b"?"))
    assert [] == received(conversation, client_bytes(Frame.Ping(b"?")))
    assert not conversation.has_control
    assert conversation.is_goodbye_due
    assert conversation.add_goodbye([])
    assert not conversation.is_goodbye_due


def test_what_the_peer_has_to_answer() -> None:
    """A Ping of ours, until its Pong has come, and our Close; nothing of its own."""
    conversation = Conversation()
    assert received(conversation, client_bytes(HELLO, Frame.Ping(b"!"))) == [HELLO]
    seen = [conversation.awaits_answer]
    conversation.control.begin_ping(b"?", "token")
    seen.append(conversation.awaits_answer)
    assert received(conversation, client_bytes(Frame.Pong(b"?"))) == []
    seen.append(conversation.awaits_answer)
    conversation.closing.close(CloseReason(1000))
    seen.append(conversation.awaits_answer)
    assert seen == [False, True, False, True]


@pytest.mark.parametrize("way", ["as it is", "inflated", "inflated in steps", "in pieces", "in inflated pieces"])
def test_what_comes_is_counted(way: str) -> None:
    """Messages and control frames alike."""
    extensions: Any = ()
    message = client_bytes(HELLO)
    if "inflated" in way:
        extensions = (inflater(),)
        message = masked(0xC2, deflated(bytes(5_000_000 if way == "inflated in steps" else 100)))
    conversation = Conversation(extensions=extensions)
    if "pieces" in way:
        conversation.stream()
    for number in (1, 2):
        got = list(conversation.receive(message + client_bytes(Frame.Ping(b"?"))))
        assert (None in got) is (way == "inflated in steps")
        assert conversation.frames_received == 2 * number


def test_the_goodbye_is_added_once_when_it_is_due() -> None:
    """As the frame that it is; whoever asks is told whether it was."""
    conversation = Conversation()
    pieces: list[bytes] = []
    assert not conversation.add_goodbye(pieces)
    conversation.closing.close(CloseReason(4000, "x"))
    assert [conversation.add_goodbye(pieces) for _ in range(2)] == [True, False]
    assert b"".join(pieces) == b"\x88\x03\x0f\xa0x"
    assert conversation.outgoing.frames_sent == 1


def test_no_goodbye_is_due_when_nothing_more_can_be_said() -> None:
    """Though there was one."""
    conversation = Conversation()
    conversation.closing.close(None)
    conversation.closing.lose()
    assert not conversation.is_goodbye_due
    assert not conversation.add_goodbye([])


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_two_of_them_speak_to_each_other(cut: int) -> None:
    """Messages both ways, Pings answered, and the closing handshake."""
    pair = Pair()
    pair.client.send(HELLO, Frame.Binary(bytes(70_000)))
    pair.server.send(Frame.Text("x" * 300))
    token = object()
    pair.server.conversation.send_control(pair.server.conversation.control.begin_ping(b"?", token))
    pair.run(cut)
    assert [HELLO, Frame.Binary(bytes(70_000))] == pair.server.messages
    assert [Frame.Text("x" * 300)] == pair.client.messages
    assert [token] == pair.server.conversation.control.take_answered()
    server, client = pair.server.conversation.closing, pair.client.conversation.closing
    client.close(CloseReason(1000, "bye"))
    pair.run(cut)
    server.answered()
    pair.run(cut)
    assert ("CLOSED", "CLOSED") == (server.word, client.word)
    assert (CloseReason(1000), CloseReason(1000, "bye")) == (client.received, server.received)
    assert (server.received, client.received) == (client.sent, server.sent)


@given(first=st.sampled_from([1000, 1001, 4000]), second=st.sampled_from([1000, 1001, 4000]), data=st.booleans())
def test_closes_that_cross_end_both(first: int, second: int, data: bool) -> None:
    """Each keeps its own reason, and hears the other's."""
    pair = Pair()
    if data:
        pair.client.send(HELLO)
        pair.server.send(HELLO)
    pair.client.conversation.closing.close(CloseReason(first))
    pair.server.conversation.closing.close(CloseReason(second))
    pair.run()
    for side, own, other in ((pair.client, first, second), (pair.server, second, first)):
        closing = side.conversation.closing
        assert (CloseReason(own), CloseReason(other)) == (closing.reason, closing.received)
        assert closing.closed_here
        assert closing.word == "CLOSED"
        assert [HELLO] * data == side.messages
