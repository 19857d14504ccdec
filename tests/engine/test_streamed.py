"""One message in pieces: who sends it, which pieces are accepted, and what is left of it at the end."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import Frame
from trioktor.engine.flushes import Flushes
from trioktor.engine.streamed import StreamedMessage


def piece(data: bytes, *, fin: bool = False) -> Frame:
    """A fragment."""
    return Frame.Binary(data, fin=fin)


async def test_pieces_are_taken_in_order(autojump_clock: MockClock) -> None:
    """One waits in the message, others behind it; behind the last one nothing is accepted."""
    stream = StreamedMessage()
    results: list[str] = []

    async def put(frame: Frame) -> None:
        try:
            await stream.put(frame)
            results.append("accepted")
        except trio.BrokenResourceError:
            results.append("refused")

    assert (stream.waiting, stream.has_begun, stream.is_over, stream.take()) == (0, False, False, None)
    async with trio.open_nursery() as nursery:
        for frame in (piece(b"1"), piece(b"2"), piece(b"3", fin=True), piece(b"4")):
            nursery.start_soon(put, frame)
            await trio.testing.wait_all_tasks_blocked()
        assert (stream.waiting, stream.has_begun, stream.is_finished) == (4, True, False)
        assert piece(b"1") == stream.take()
        assert piece(b"2") == stream.take()
        assert (stream.is_finished, stream.is_over) == (True, False)
        assert piece(b"3", fin=True) == stream.take()
        assert (stream.is_over, stream.waiting, stream.take()) == (True, 0, None)
    assert sorted(results) == ["accepted", "accepted", "accepted", "refused"]
    with pytest.raises(trio.BrokenResourceError):
        await stream.put(piece(b"5"))


@pytest.mark.parametrize("last", [False, True])
async def test_sealed_it_gives_what_was_accepted_and_what_waits(autojump_clock: MockClock, last: bool) -> None:
    """Up to the last piece, if that is among them."""
    stream = StreamedMessage()
    refused: list[bytes] = []

    async def put(frame: Frame) -> None:
        try:
            await stream.put(frame)
        except trio.BrokenResourceError:
            refused.append(frame.data)

    async with trio.open_nursery() as nursery:
        for frame in (piece(b"1"), piece(b"2", fin=last), piece(b"3")):
            nursery.start_soon(put, frame)
            await trio.testing.wait_all_tasks_blocked()
        frames = stream.seal()
    assert [frame.data for frame in frames] == ([b"1", b"2"] if last else [b"1", b"2", b"3"])
    assert refused == ([b"3"] if last else [])
    assert (stream.is_finished, stream.is_shut, stream.waiting) == (last, True, 0)
    assert stream.seal() == []
    with pytest.raises(trio.BrokenResourceError):
        await stream.put(piece(b"4"))


async def test_a_writer_waits_for_the_next_piece_or_the_end(autojump_clock: MockClock) -> None:
    """And shows that it does."""
    stream = StreamedMessage()
    woken: list[str] = []

    async def take() -> None:
        for name in ("piece", "end"):
            await stream.wait()
            woken.append(name)
            stream.take()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert (stream.is_awaited, woken) == (True, [])
        await stream.put(piece(b"1"))
        await trio.testing.wait_all_tasks_blocked()
        assert (stream.is_awaited, woken) == (True, ["piece"])
        stream.seal()
    assert (stream.is_awaited, woken) == (False, ["piece", "end"])


async def test_the_flush_of_a_message_waits_for_its_pieces(autojump_clock: MockClock) -> None:
    """For those that were accepted, and those that wait."""
    stream = StreamedMessage()
    stream.reach(1)
    done: list[str] = []

    async def flush() -> None:
        await stream.flush(Flushes(), 0)
        done.append("flushed")

    await stream.put(piece(b"1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.put, piece(b"2"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        stream.take()
        stream.flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        stream.take()
        stream.flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["flushed"]


async def test_who_sends_a_message_is_known_by_its_tasks(autojump_clock: MockClock) -> None:
    """Those that began inside of it belong to it; those beside it do not."""
    stream = StreamedMessage()
    found: dict[str, bool] = {}

    async def ask(name: str) -> None:
        await trio.testing.wait_all_tasks_blocked()
        found[name] = stream.is_sent_by(trio.lowlevel.current_task())

    async def nested(name: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, name)

    assert not stream.is_sent_by(trio.lowlevel.current_task())
    async with trio.open_nursery() as outside:
        outside.start_soon(ask, "beside")
        outside.start_soon(nested, "beside and below")
        stream.begin()
        await ask("itself")
        async with trio.open_nursery() as inside:
            inside.start_soon(ask, "inside")
            inside.start_soon(nested, "inside and below")
    assert found == {
        "itself": True,
        "inside": True,
        "inside and below": True,
        "beside": False,
        "beside and below": False,
    }


async def test_a_message_that_is_shut_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The writer looks elsewhere."""
    stream = StreamedMessage()
    stream.seal()
    with trio.fail_after(1):
        await stream.wait()


async def test_a_piece_that_has_its_place_is_accepted_at_once(autojump_clock: MockClock) -> None:
    """It is a checkpoint, and so is a refusal."""
    stream = StreamedMessage()
    with trio.testing.assert_checkpoints():
        await stream.put(piece(b"", fin=True))
    assert (stream.waiting, stream.has_begun, stream.is_finished) == (1, True, True)
    with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError, match="over"):
        await stream.put(piece(b"late"))
    assert stream.waiting == 1


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_piece_whose_sender_is_cancelled_was_not_accepted(before: int, autojump_clock: MockClock) -> None:
    """Before it has begun, or while it waits behind others, who stay."""
    stream = StreamedMessage()
    async with trio.open_nursery() as nursery:
        for number in range(before):
            nursery.start_soon(stream.put, piece(b"%d" % number))
            await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.put(piece(b"never"))
        assert scope.cancelled_caught
        assert (stream.waiting, stream.has_begun) == (before, before > 0)
        assert [stream.take() for _ in range(before)] == [piece(b"%d" % number) for number in range(before)]
        assert stream.take() is None


async def test_cancelled_in_the_step_in_which_it_is_accepted_it_stays_accepted(autojump_clock: MockClock) -> None:
    """Whoever sent it does not send it again."""
    stream = StreamedMessage()
    returned: list[bool] = []

    async def put(scope: trio.CancelScope) -> None:
        with scope:
            await stream.put(piece(b"1"))
            returned.append(True)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(put, scope)
        while not stream.waiting:
            await trio.lowlevel.checkpoint()
        scope.cancel()
    assert returned == [True]
    assert stream.take() == piece(b"1")


async def test_where_there_is_no_task_nobody_sends_it() -> None:
    """As where Trio itself calls."""
    stream = StreamedMessage()
    assert not stream.is_sent_by(None)
    stream.begin()
    assert not stream.is_sent_by(None)


async def test_the_flush_of_a_message_waits_for_what_stands_before_it(autojump_clock: MockClock) -> None:
    """Until the writer has come to it nobody knows how much that is; control frames overtake all of it."""
    outbox, stream = Flushes(), StreamedMessage()
    seen: list[str] = []

    async def flush() -> None:
        await stream.flush(outbox, 1)
        seen.append("flushed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        outbox.taken = 3  # two others, and the message
        stream.reach(outbox.taken)
        await trio.testing.wait_all_tasks_blocked()
        outbox.note_written(2)
        await trio.testing.wait_all_tasks_blocked()
        outbox.note_written(1)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        outbox.controls_taken = 1
        outbox.note_written(1)
    assert seen == ["flushed"]


@pytest.mark.parametrize("is_finished", [False, True])
async def test_a_flush_ends_with_the_message(is_finished: bool, autojump_clock: MockClock) -> None:
    """When it is shut nothing of it will be written any more."""
    stream = StreamedMessage()
    await stream.put(piece(b"1", fin=is_finished))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.flush, Flushes(), 0)
        await trio.testing.wait_all_tasks_blocked()
        assert [piece(b"1", fin=is_finished)] == stream.seal()
    assert stream.is_over == is_finished
    with trio.fail_after(1), trio.testing.assert_checkpoints():
        await stream.flush(Flushes(), 0)


async def test_a_writer_that_waits_lets_go_of_those_who_flush(autojump_clock: MockClock) -> None:
    """It has written all that it took."""
    stream = StreamedMessage()
    stream.reach(1)
    await stream.put(piece(b"1"))
    stream.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.flush, Flushes(), 0)
        await trio.testing.wait_all_tasks_blocked()
        writer = trio.CancelScope()

        async def wait() -> None:
            with writer:
                await stream.wait()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        writer.cancel()


async def test_what_waits_already_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The writer goes on at once, as often as it asks; that is a checkpoint."""
    stream = StreamedMessage()
    await stream.put(piece(b"1"))
    for _ in range(2):
        with trio.fail_after(1), trio.testing.assert_checkpoints():
            await stream.wait()
    assert stream.take() == piece(b"1")


async def test_sealed_before_a_piece_came_it_has_not_begun(autojump_clock: MockClock) -> None:
    """There is nothing to be ended."""
    stream = StreamedMessage()
    assert stream.seal() == []
    assert (stream.has_begun, stream.is_finished, stream.is_over, stream.is_shut) == (False, False, False, True)
