"""Handlers, as they are registered: is this one, and which path parameters does it take by name.

Wrong signatures are reported when the handler is registered, so that the error shows that line.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, ForwardRef, Literal, TypeAlias, Union, get_args, get_origin

from .patterns import Pattern

Wanted: TypeAlias = "tuple[tuple[str, Any], ...]"
"""Path parameters that a handler takes by name, and what stands for each that may be left out, and was."""


def check_hook(hook: object) -> None:
    """Check a function that is asked before an upgrade.

    Raises:
      TypeError: it is not an `async def` that takes the call.
    """
    name, parameters = _check_async(hook, "call", "a hook")
    for parameter in parameters[1:]:
        is_optional = parameter.default is not inspect.Parameter.empty
        if not is_optional and parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise TypeError(f"{name} wants {parameter.name!r}: a hook is given the call alone; write {name}(call)")


def wanted_parameters(handler: object, pattern: Pattern, first: str) -> Wanted:
    """The path parameters that a handler takes by name, or an error that says what is wrong with it."""
    name, parameters = _check_async(handler, first, "a handler")
    wanted = []
    own = inspect.signature(handler, follow_wrapped=False).parameters  # type: ignore[arg-type]  # it was checked
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values())
    for parameter in parameters[1:]:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"{name} takes {parameter.name!r} by position: path parameters are given by name")
        if parameter.name in pattern.names and (takes_any or parameter.name in own):  # else a decorator sees to it
            _check_annotation(name, parameter, handler)
            default = parameter.default
            wanted.append((parameter.name, None if default is inspect.Parameter.empty else default))
        elif parameter.default is inspect.Parameter.empty and parameter.name in own:  # else a decorator may give it
            raise ValueError(
                f"{name} wants {parameter.name!r}, which {pattern.text!r} does not name:"
                f" put {{{parameter.name}}} into the path, or take it from {first}"
            )
    return tuple(wanted)


def _check_async(handler: object, first: str, what: str) -> tuple[str, list[inspect.Parameter]]:
    """The name and parameters of an async function that takes at least one."""
    name = getattr(handler, "__qualname__", repr(handler))
    if not callable(handler):
        raise TypeError(f"{what} is an async function, not {handler!r}")
    if inspect.isasyncgenfunction(_function_of(handler)):
        raise TypeError(f"{name} is an async generator: take the {first} and send with it instead of yielding")
    if not is_async(handler):
        raise TypeError(f"{name} is not async: write `async def {name}({first})`")
    parameters = list(inspect.signature(handler).parameters.values())
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    if not parameters or parameters[0].kind in by_name:
        raise TypeError(f"{name} takes no {first}: write `async def {name}({first})`")
    return name, parameters


def is_async(function: Callable[..., object]) -> bool:
    """Whether this is an async function, calls one (a `partial`, an object), or is a decorator round or of one."""
    target = _function_of(function)
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(inspect.unwrap(target))


def _function_of(handler: Callable[..., object]) -> Callable[..., object]:
    """What a `partial` or a callable object calls."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if inspect.isroutine(handler) else type(handler).__call__


def _check_annotation(name: str, parameter: inspect.Parameter, handler: Any) -> None:
    """Refuse a parameter that is said to be what no path gives.

    What a decorator wraps is left alone: the wrapper may convert.
    """
    function = _function_of(handler)
    if hasattr(function, "__wrapped__"):
        return
    annotation = parameter.annotation
    if annotation is not inspect.Parameter.empty and not _may_be_str(annotation, getattr(function, "__globals__", {})):
        said = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        raise TypeError(
            f"{name} wants {parameter.name!r} as {said}, but what a path gives is str:"
            f" write `{parameter.name}: str` and convert it in the handler"
        )


def _may_be_str(annotation: Any, names: dict[str, Any]) -> bool:
    """Whether a str is, or may be, what an annotation says; True where that cannot be found out."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, names)  # the handler's own code, in its own module
        except Exception:  # a name for type checkers alone, or of an inner scope
            return True
    if annotation is Any:
        return True
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_may_be_str(member, names) for member in get_args(annotation))
    if origin is Annotated:
        return _may_be_str(annotation.__origin__, names)
    if origin is Literal:
        return any(isinstance(value, str) for value in get_args(annotation))
    if hasattr(annotation, "__supertype__"):  # a NewType
        return _may_be_str(annotation.__supertype__, names)
    kind = types.NoneType if annotation is None else origin or annotation
    try:
        return not isinstance(kind, type) or issubclass(str, kind)
    except TypeError:  # a protocol that cannot be asked
        return True
