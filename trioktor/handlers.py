"""Handlers, as they are registered: is this one, and which path parameters does it take by name.

Checked by what a person would get wrong, so that the error comes with the line that registers the handler.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from .routing import Pattern


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


def wanted_parameters(handler: object, pattern: Pattern, first: str) -> tuple[str, ...]:
    """The path parameters that a handler takes by name, or an error that says what is wrong with it."""
    name, parameters = _check_async(handler, first, "a handler")
    wanted = []
    for parameter in parameters[1:]:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"{name} takes {parameter.name!r} by position: path parameters are given by name")
        if parameter.name in pattern.names:
            wanted.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
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
    target: Callable[..., object] = handler
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    if inspect.isasyncgenfunction(target):
        raise TypeError(f"{name} is an async generator: take the {first} and send with it instead of yielding")
    if not inspect.iscoroutinefunction(inspect.unwrap(target)):
        raise TypeError(f"{name} is not async: write `async def {name}({first})`")
    parameters = list(inspect.signature(handler).parameters.values())
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    if not parameters or parameters[0].kind in by_name:
        raise TypeError(f"{name} takes no {first}: write `async def {name}({first})`")
    return name, parameters
