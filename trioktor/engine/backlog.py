"""What was accepted before the end and is not written yet: it goes out in order, and then the Close."""

from __future__ import annotations

from ..protocol.frames import CloseFrame
from ..protocol.serializer import is_sendable
from .items import Item
from .streamed import StreamedMessage


class Backlog:
    """The rest of a sealed outbox.

    Args:
      items: what waited.
      drop: whether that is not to be written any more.

    Attributes:
      close: the Close among the items: it is the end of them.
      is_final: nothing more can stand behind the items.
    """

    __slots__ = ("_is_dropping", "_items", "close", "is_final")

    def __init__(self, items: list[Item], *, drop: bool) -> None:
        self.close: CloseFrame | None
        self.is_final: bool
        kept, self.close, self.is_final = _compose(items)
        self._is_dropping = drop
        self._items: list[Item] = [] if drop else kept[::-1]  # the next one last

    def __len__(self) -> int:
        return len(self._items)

    def extend(self, items: list[Item]) -> None:
        """What was accepted last."""
        self._items[:0] = items[::-1]

    def put_before(self, item: Item) -> CloseFrame | None:
        """Put in front what had been handed to the writer, unseen, at the end; returns it if it is a Close."""
        kept, close, is_final = _compose([item])
        if self._is_dropping:
            return None
        if is_final:
            self._items.clear()
        self._items.extend(reversed(kept))
        return close

    def take(self) -> Item:
        """Take the next item; there has to be one."""
        return self._items.pop()

    def drop(self) -> None:
        """Nothing will be written any more."""
        self._is_dropping = True
        self._items.clear()


def _compose(items: list[Item]) -> tuple[list[Item], CloseFrame | None, bool]:
    """What of a sealed queue can go out, the Close that ends it, and whether nothing more can stand behind.

    Behind a Close, or a message in pieces that can't be finished any more, nothing can be said.
    """
    kept: list[Item] = []
    close: CloseFrame | None = None
    is_end = False
    for item in items:
        if type(item) is StreamedMessage:
            frames = item.seal()
            if not is_end:
                kept.extend(frames)
                is_end = item.has_begun and not item.is_finished
        elif is_end:
            continue
        elif isinstance(item, CloseFrame) and is_sendable(item):
            close = item
            is_end = True
        else:
            kept.append(item)
    return kept, close, is_end
