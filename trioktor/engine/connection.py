"""One connection after the upgrade: one nursery, and who starts in it.

Theory of operation. The connection decides nothing: how the conversation ends, and what is waited for, is the
`ClosingHandshake`'s (`protocol.closing`). Whoever has told it something calls `look_up`, which starts what the new
state asks for: the writer, if there is something to write, and the `Ending`, if there is more to wait for than input.

The nursery holds the handler in its body. Beside it run, when there is a need: the reader, where no poller reads or
lends; the writer; the ending, unless the handler's task is it; the pinger with its watchdog. None of the connection's
own tasks raises for what a peer does. What reads and writes runs shielded (`engine.shields`), so that a cancellation
from outside cannot tear a frame or lose a Close; in exchange every way out gives all shields a deadline
(`engine.ends`).

The connection refers to its parts, and they to it, by a weak proxy: so it is freed at once when it is over, with all
that it holds, and not by the garbage collector.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from ..config import WebSockets, channel_config
from ..protocol.closing import ClosingHandshake
from ..protocol.conversation import Conversation
from ..protocol.extensions import Extension
from ..protocol.frames import Frame
from ..protocol.halves import Ours, Theirs
from ..protocol.raw_conversation import RawConversation
from .ending import Ending
from .ends import Ends
from .frame_log import is_logging, log_frame
from .inbox import Inbox
from .intake import Intake
from .outbox import Outbox
from .pinging import Pinging
from .polled_reader import PolledReader
from .poller import Poller
from .reader import Reader
from .shields import Shields, Stop
from .sockets import SocketTransport
from .streamed import StreamedMessage
from .tasks import HandlerTasks
from .transport import Transport
from .wire import Wire
from .writing import Writing


class Connection:
    """An upgraded connection.

    Args:
      transport: the stream below; closed by `engine.lifetime`.
      settings: the configuration that holds here.
      client: whether this is the client's side, which masks.
      raw: whether the session sees every frame and answers by itself.
      extensions: those that were negotiated; in a raw session they are the handler's business.
      response: makes what to write first: the 101. Called, and written, when the handler waits or sends for the
        first time; so no cancellation comes between it and the conversation.
      trailing_data: bytes that came with the handshake.
      stop: the end shared with other connections.
      poller: reads the stream, or lends it, if it is a plain socket; else, or without one, a task does.
      on_failure: called with what a handler raised, if that is a failure; the default logs it.
    """

    __slots__ = (
        "__weakref__",
        "_nursery",
        "_pinging",
        "_session",
        "closing",
        "conversation",
        "ending",
        "ends",
        "extensions",
        "inbox",
        "intake",
        "opened_at",
        "outbox",
        "reader",
        "settings",
        "shields",
        "tasks",
        "transport",
        "writing",
    )

    def __init__(
        self,
        transport: Transport,
        settings: WebSockets,
        *,
        client: bool = False,
        raw: bool = False,
        extensions: tuple[Extension, ...] = (),
        response: Callable[[], bytes] | None = None,
        trailing_data: bytes = b"",
        stop: Stop | None = None,
        poller: Poller | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.transport: Transport = transport
        self.settings: WebSockets = settings
        self.opened_at: float = trio.current_time()
        self._session: Any = None
        transport.write_timeout = settings.write_timeout
        # what it consists of
        self.extensions: tuple[Extension, ...] = extensions
        self.conversation: Conversation = (RawConversation if raw else Conversation)(
            client=client,
            max_frame_size=settings.max_frame_size,
            max_fragments=settings.max_fragments,
            extensions=extensions,
            masking=settings.masking,
            on_frame=self._log_frame if is_logging() else None,
        )
        self.closing: ClosingHandshake = self.conversation.closing
        self.inbox: Inbox = Inbox(channel_config(settings.incoming), settings.max_queued_bytes)
        self.ends: Ends = Ends(self, stop or Stop(), on_failure)
        outgoing = channel_config(settings.outgoing)
        wire = Wire(transport, is_begun=response is None)
        self.outbox: Outbox = Outbox(self, wire, outgoing, settings.max_queued_bytes, self.conversation)
        # who runs
        self._nursery: trio.Nursery | None = None
        self.shields: Shields = Shields()
        self.tasks: HandlerTasks = HandlerTasks(self.ends)
        self.intake: Intake = Intake(self)
        self.reader: Reader | PolledReader
        looks = None
        if poller is not None and poller.is_running and type(transport) is SocketTransport:
            self.reader = PolledReader(
                poller, transport, self.inbox, self.intake, self.conversation, wire, self.shields, trailing_data
            )
            looks = poller.looks
        else:
            self.reader = Reader(transport, self.intake, self.closing, self.shields, trailing_data)
        self.writing: Writing = Writing(self, response, None if poller is None else poller.later)
        self._pinging: Pinging | None = None  # once there is a Ping
        self.ending: Ending = Ending(self, looks)

    def __repr__(self) -> str:
        owner = self.owner
        return repr(owner) if owner is not self else object.__repr__(self)

    @property
    def owner(self) -> Any:
        """The session, until the end, or the connection itself: named in errors and logs."""
        return self if self._session is None else self._session

    @owner.setter
    def owner(self, session: object) -> None:
        self._session = session

    @property
    def task(self) -> trio.lowlevel.Task:
        """The one that the handler runs in."""
        return self.tasks.task

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where the connection's tasks are started; None before it runs, and when it is closed."""
        return None if self.ending.is_closed else self._nursery

    def begin(self, nursery: trio.Nursery) -> None:
        """Start, in a nursery whose body is the handler."""
        self._nursery = nursery
        self.reader.start(nursery)
        closing = self.closing
        if closing.reason is not None:  # it was closed before it ran
            self.look_up()
        if self.settings.ping_period is not None and not closing.is_raw:  # there the handler sees the Pongs
            self.pinging.set(self.settings.ping_period, self.settings.timeout)

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; its failure counts as the handler's."""
        assert self._nursery is not None
        self.tasks.start_soon(self._nursery, fn, args)

    def look_up(self) -> None:
        """The conversation was told something: start what its state asks for. Called after any input."""
        conversation = self.conversation
        conversation.has_news = False
        closing, lane = conversation.closing, conversation.lane
        if lane is not None and lane.answered:
            self.pinging.note_answers()
        is_over = closing.theirs is not Theirs.OPEN
        if is_over and not self.inbox.is_ended:
            self._end_input()
        if closing.ours is Ours.CLOSING or (lane is not None and lane.is_waiting):
            self.writing.write_rest()
        lease = self.inbox.takers.lease
        if lease is not None and conversation.awaits_answer:
            lease.lender.take_back()
        if closing.reason is not None:
            if closing.ours is Ours.GONE:
                self.outbox.abandon()
            if self._pinging is not None:
                self._pinging.stop()
        if (is_over or closing.ours is not Ours.OPEN) and self._nursery is not None:
            self.ending.look_up()

    def _end_input(self) -> None:
        """Nothing more is read: the handler comes to the end of `incoming` behind what waits there."""
        self.ending.answer_grace = self.inbox.end(self.settings.answer_grace)
        self.reader.stop()  # who waits by a lease is woken here
        if self._pinging is not None:
            self._pinging.end()

    def _log_frame(self, direction: str, frame: Frame) -> None:
        log_frame(direction, self.owner, frame)

    async def flush(self, streams: Iterable[StreamedMessage]) -> None:
        """Wait until all that was sent before is with the system, or the connection is over. A checkpoint.

        Whoever sends one of the `streams` does not wait for what is behind it, which has to wait for him.
        """
        self.writing.respond()  # here: at the first wait it would wake who waits
        self.writing.uncork()
        for stream in streams:
            if stream.is_sent_by(trio.lowlevel.current_task()):
                await stream.flush(self.outbox.flushes, self.outbox.pending.controls)
                if not stream.is_shut:
                    return
        await self.outbox.flush()

    # Pings

    @property
    def pinging(self) -> Pinging:
        """The Pings, ours and the pinger's."""
        if self._pinging is None:
            self._pinging = Pinging(self, self.intake, self.settings.timeout)
        return self._pinging

    @property
    def latency(self) -> float | None:
        """Seconds that the last answered Ping took."""
        return None if self._pinging is None else self._pinging.latency
