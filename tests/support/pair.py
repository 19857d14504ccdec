"""Two pure conversations, wired back to back."""

from __future__ import annotations

from trioktor.protocol.conversation import Conversation
from trioktor.protocol.frames import Frame


class Side:
    """One of the two: what it received, and what it says next."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.messages: list[Frame] = []
        self._queued: list[Frame] = []

    def send(self, *messages: Frame) -> None:
        """Say messages."""
        self._queued.extend(messages)

    def take(self) -> bytes:
        """The bytes of all that this side has to say now; its Close last."""
        conversation = self.conversation
        pieces: list[bytes] = []
        conversation.control.take(conversation.serializer, pieces)
        for message in self._queued:
            conversation.serializer.add(message, pieces)
        self._queued.clear()
        if conversation.add_goodbye(pieces):
            conversation.closing.written()
        return b"".join(pieces)

    def receive(self, data: bytes, cut: int = 1 << 20) -> None:
        """Read bytes, so many at a time."""
        for start in range(0, len(data), cut):
            self.messages.extend(
                frame for frame in self.conversation.receive(data[start : start + cut]) if frame is not None
            )


class Pair:
    """A server and a client."""

    def __init__(self) -> None:
        self.server = Side(Conversation())
        self.client = Side(Conversation(client=True))

    def run(self, cut: int = 1 << 20) -> None:
        """Carry bytes until nobody has anything to say."""
        while True:
            up, down = self.client.take(), self.server.take()
            if not up and not down:
                return
            self.server.receive(up, cut)
            self.client.receive(down, cut)
