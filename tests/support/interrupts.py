"""Ctrl-C at any line of some functions."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def ctrl_c_felt() -> Iterator[None]:
    """SIGINT is Ctrl-C, also in the background of a shell, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ctrl_c_at(place: int, *functions: Callable[..., object]) -> Iterator[list[int]]:
    """Ctrl-C at that line, counted from 1, of all that these run in the block; gives where it came."""
    code = {getattr(function, "__code__") for function in functions}  # noqa: B009  # of any callable's
    lines, came = itertools.count(1), list[int]()

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code not in code:
            return None
        if event == "line" and next(lines) == place:
            came.append(place)
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield came
    finally:
        sys.settrace(before)
