"""Values instead of frames: `session.send_serialized` and `session.receive_deserialized`.

`JsonConverter` needs the standard library alone and knows plain JSON values; `CattrsConverter` (extra
`cattrs`) and `MsgspecConverter` (extra `msgspec`) build objects of your classes, each by its own rules: msgspec
is strict, cattrs converts what it can. All three write
Text frames of compact JSON and read Text and Binary ones. Your own converter is any object with these three
methods.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import UnionType
from typing import Any, Final, NoReturn, Protocol, TypeVar, Union, final, get_args, get_origin, runtime_checkable

from .errors import DeserializationError
from .protocol.frames import BinaryFrame, Frame, TextFrame

T = TypeVar("T")

_PLAIN: Final = (dict, list, str, int, float, bool, type(None))


@runtime_checkable
class ContentConverter(Protocol):
    """Turns values into frames and frames into values (Ktor's `WebsocketContentConverter`)."""

    def serialize(self, value: object) -> Frame:
        """The frame that says a value; raises TypeError or ValueError for one that cannot be said."""
        ...

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """The value of a frame, which has to be of a type; raises DeserializationError if it is not."""
        ...

    def is_applicable(self, frame: Frame) -> bool:
        """Whether frames of this type can hold a value."""
        ...


class _Json:
    """What the JSON converters have in common: the kinds of frames."""

    def is_applicable(self, frame: Frame) -> bool:
        """Text and Binary frames hold JSON."""
        return isinstance(frame, (TextFrame, BinaryFrame))


@final
class JsonConverter(_Json):
    """JSON by the standard library, for plain values: dict, list, str, int, float, bool and None.

    Args:
      dumps, loads: instead of `json.dumps` and `json.loads`; `dumps` returns str or bytes.
    """

    def __init__(
        self,
        *,
        dumps: Callable[[Any], str | bytes] | None = None,
        loads: Callable[[str | bytes], Any] | None = None,
    ) -> None:
        self._dumps = dumps or _compact
        self._loads = loads or _strict_loads

    def serialize(self, value: object) -> Frame:
        """The Text frame of a value.

        Raises:
          TypeError, ValueError: JSON cannot say it.
        """
        return TextFrame(self._dumps(value))

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """The value of a frame; `kind` is made of the plain types, unions, `list[…]`, `dict[str, …]` and Any.

        Raises:
          DeserializationError: not JSON, or of another type, which is checked to the bottom.
          TypeError: `kind` is a class that needs one of the other converters.
        """
        _check_plain(kind)
        value = _load(self._loads, frame)
        if not _is_a(value, kind):
            raise DeserializationError(f"expected {_name(kind)}, got {_name(type(value))}", frame)
        return value


@final
class MsgspecConverter(_Json):
    """JSON by msgspec: its Structs, dataclasses, attrs classes, TypedDicts and the rest; checked by type.

    Raises:
      ImportError: it needs the extra `msgspec`.
    """

    def __init__(self) -> None:
        try:
            import msgspec
        except ImportError:
            raise ImportError("MsgspecConverter needs msgspec: pip install 'trioktor[msgspec]'") from None
        self._encode = msgspec.json.Encoder().encode
        self._decoders: dict[Any, Callable[[bytes], Any]] = {}
        self._new_decoder = msgspec.json.Decoder
        self._error: type[Exception] = msgspec.MsgspecError

    def serialize(self, value: object) -> Frame:
        """The Text frame of a value; TypeError or ValueError if msgspec cannot encode it."""
        return TextFrame(self._encode(value))

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """The value of a frame; DeserializationError if it is not of that type."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = self._new_decoder(kind).decode
        try:
            return decode(frame.data)
        except (self._error, RecursionError, ValueError) as error:
            raise DeserializationError(str(error), frame) from error


@final
class CattrsConverter(_Json):
    """JSON by cattrs, for attrs classes, dataclasses and what else it can structure.

    Args:
      converter: a configured cattrs converter; its JSON preset if left out.

    Raises:
      ImportError: without a converter it needs the extra `cattrs`.
    """

    def __init__(self, converter: Any = None) -> None:
        if converter is None:
            try:
                from cattrs.preconf.json import make_converter
            except ImportError:
                raise ImportError("CattrsConverter needs cattrs: pip install 'trioktor[cattrs]'") from None
            converter = make_converter()
        self._converter = converter

    def serialize(self, value: object) -> Frame:
        """The Text frame of a value; TypeError or ValueError if it cannot be said in JSON."""
        return TextFrame(_compact(self._converter.unstructure(value)))

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """The value of a frame; DeserializationError if it is not of that type."""
        value = _load(_strict_loads, frame)
        try:
            return self._converter.structure(value, kind)
        except Exception as error:  # cattrs raises groups, and whatever hooks and constructors raise
            if _is_unknown_kind(error):
                raise
            raise DeserializationError(f"not {_name(kind)}: {type(error).__name__}", frame) from error


def _compact(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can say and UTF-8 cannot
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


def _strict_loads(text: str | bytes) -> Any:
    if isinstance(text, bytes):  # the parser would guess other encodings
        text = text.decode()
    return json.loads(text, parse_constant=_refuse_number, parse_float=_finite)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _is_unknown_kind(error: BaseException) -> bool:
    """Whether cattrs does not know how to make what was asked for: our mistake, not the peer's."""
    from cattrs import StructureHandlerNotFoundError

    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_unknown_kind, error.exceptions))
    return isinstance(error, StructureHandlerNotFoundError)


def _load(loads: Callable[[str | bytes], Any], frame: Frame) -> Any:
    try:
        if isinstance(frame, TextFrame):
            return loads(frame.text)
        frame.data.decode()  # RFC 8259 §8.1: UTF-8, whoever reads it
        return loads(frame.data)
    except (ValueError, RecursionError) as error:  # nested too deep is as malformed as anything
        raise DeserializationError(f"not JSON: {error}", frame) from error


def _check_plain(kind: Any) -> None:
    """Refuse a type that JSON values do not have."""
    if kind is Any or kind is object or kind is None or kind in _PLAIN:
        return
    origin, members = get_origin(kind), get_args(kind)
    is_known = origin in (Union, UnionType, list) or (origin is dict and members[0] is str)
    if not is_known:
        raise TypeError(f"JsonConverter makes plain values, not {_name(kind)}: use MsgspecConverter or CattrsConverter")
    for member in members:
        _check_plain(member)


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Any or kind is object:
        return True
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_a(value, member) for member in members)
    if origin is list:
        return type(value) is list and all(_is_a(item, members[0]) for item in value)
    if origin is dict:
        return type(value) is dict and all(_is_a(item, members[1]) for item in value.values())
    # bool is an int to Python, and no number to JSON; an int is as good as the float it could be.
    return type(value) is (type(None) if kind is None else kind) or (kind is float and type(value) is int)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", repr(kind)) if isinstance(kind, type) and not get_args(kind) else repr(kind)
