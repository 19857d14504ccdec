"""How two sides agree on extensions (RFC 6455 §9.1): the client offers, the server answers.

A header that breaks the grammar is an error, which is a refusal; an offer that a server's factory does not like is
declined, and the next one is looked at. A client takes what answers an offer of its own, and fails for anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .extension_header import TOKEN, ExtensionHeader, parse_extensions
from .extensions import Extension, ExtensionFactory
from .first_byte import RESERVED


def check_factories(factories: object) -> None:
    """Refuse factories that cannot work side by side.

    Raises:
      ValueError: two claim the same name or reserved bit, or one is no factory; or they are no list.
    """
    if not isinstance(factories, Sequence) or isinstance(factories, str):
        raise ValueError(f"extensions must be a list such as [PerMessageDeflate()], not {factories!r}")
    names: set[str] = set()
    bits = 0
    for factory in factories:
        if not isinstance(factory, ExtensionFactory):
            hint = f": write {factory.__name__}()" if isinstance(factory, type) else ""
            raise ValueError(f"extensions must be ExtensionFactory objects, not {factory!r}{hint}")
        if factory.name is not None:
            if not TOKEN.fullmatch(factory.name):
                raise ValueError(f"extensions: {factory.name!r} is not an extension's name (an RFC 9110 token)")
            if factory.name in names:
                raise ValueError(f"extensions: {factory.name!r} is installed twice")
            names.add(factory.name)
        if factory.reserved & ~RESERVED or factory.reserved & bits:
            raise ValueError(f"extensions: a reserved bit of {factory!r} is no reserved bit, or another's already")
        bits |= factory.reserved


def negotiate(
    factories: Sequence[ExtensionFactory], lines: Iterable[str]
) -> tuple[list[ExtensionHeader], tuple[Extension, ...]]:
    """Agree on extensions: what to answer, and the instances, both in the order of installation.

    Raises:
      ValueError: the offer breaks the grammar.
    """
    offers = parse_extensions(lines)
    answers: list[ExtensionHeader] = []
    extensions: list[Extension] = []
    for factory in factories:
        if factory.name is None:
            agreed = factory.negotiate(ExtensionHeader(""))
            if agreed is not None:
                extensions.append(agreed[1])
            continue
        for offer in offers:
            agreed = factory.negotiate(offer) if offer.name == factory.name else None
            if agreed is not None:
                answers.append(agreed[0])
                extensions.append(agreed[1])
                break
    return answers, tuple(extensions)


def offers(factories: Sequence[ExtensionFactory]) -> str:
    """What a client's `Sec-WebSocket-Extensions` says."""
    return ", ".join(str(offer) for factory in factories if factory.name is not None for offer in factory.offer())


def accept(factories: Sequence[ExtensionFactory], lines: Iterable[str]) -> tuple[Extension, ...]:
    """The client's instances for what the server answered.

    They work in the order of the answer (RFC 6455 §9.1); those without a name stay where they are installed.

    Raises:
      ValueError: the answer breaks the grammar, or names something that was not offered, or twice.
    """
    offered = {factory.name: factory for factory in factories if factory.name is not None}
    answered: dict[str, Extension] = {}
    try:
        answers = parse_extensions(lines)
    except ValueError:
        raise ValueError("Sec-WebSocket-Extensions breaks its grammar") from None
    for answer in answers:
        factory = offered.get(answer.name)
        if factory is None or answer.name in answered:
            raise ValueError(f"the extension {answer.name[:200]!a} was not offered, or is answered twice")
        answered[answer.name] = factory.accept(answer)
    in_order = iter(answered.values())
    extensions: list[Extension] = []
    for factory in factories:
        if factory.name is None:
            agreed = factory.negotiate(ExtensionHeader(""))
            if agreed is not None:
                extensions.append(agreed[1])
        elif factory.name in answered:
            extensions.append(next(in_order))
    return tuple(extensions)
