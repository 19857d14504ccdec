"""A part of a connection knows it, and does not keep it alive."""

from __future__ import annotations

import gc
import weakref

from trioktor.engine.part import Part


class Connection:
    """Has a part."""

    def __init__(self) -> None:
        self.name = "the connection"
        self.part = Named(self)


class Named(Part[Connection]):
    """Asks its connection for its name."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The connection's."""
        return self._connection.name


def test_a_part_reaches_its_connection() -> None:
    """As it is by then."""
    connection = Connection()
    assert connection.part.name == "the connection"
    connection.name = "another name"
    assert connection.part.name == "another name"


def test_a_part_does_not_keep_its_connection() -> None:
    """References count to nothing, though each knows the other; no collector is needed."""
    gc.disable()
    try:
        connection = Connection()
        alive = weakref.ref(connection)
        part = connection.part
        del connection
        assert alive() is None
        del part
    finally:
        gc.enable()


def test_a_part_has_no_room_for_anything_else() -> None:
    """There are many connections, and each has several."""
    assert not hasattr(Connection().part, "__dict__")
