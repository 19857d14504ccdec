"""How two sides agree on extensions: what may be installed, what is offered, answered and taken."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.support.extensions import Marking
from trioktor.protocol.deflate import PerMessageDeflate
from trioktor.protocol.extension_header import ExtensionHeader
from trioktor.protocol.extensions import Extension, ExtensionFactory
from trioktor.protocol.first_byte import RSV1, RSV2, RSV3
from trioktor.protocol.negotiation import accept, check_factories, negotiate, offers


class Choosy(ExtensionFactory):
    """Takes what has just one parameter, or the name alone where there is no name; says what it wants."""

    def __init__(self, name: str | None, *wanted: str) -> None:
        self.name = name
        self.wanted = wanted

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Answer with the parameter, turned round."""
        if len(offer.parameters) != 1:
            return None
        [(parameter, value)] = offer.parameters
        return ExtensionHeader(offer.name, ((f"my-{parameter}", value),)), Extension(self)

    def offer(self) -> list[ExtensionHeader]:
        """One for each wish."""
        assert self.name is not None
        return [ExtensionHeader(self.name, ((wish, None),)) for wish in self.wanted]


def names(extensions: tuple[Extension, ...]) -> list[str | None]:
    """Whose they are."""
    return [extension.factory.name for extension in extensions]


# what may be installed


@pytest.mark.parametrize(
    "factories",
    [
        [PerMessageDeflate(), PerMessageDeflate(level=9)],
        [PerMessageDeflate(), Marking("other", RSV1)],
        [Marking("a", RSV2), Marking("a", RSV3)],
        [Marking("a", RSV2), Marking(None, RSV2)],
        [Marking("a", RSV2), Marking("b", RSV3), Marking("c", RSV2)],
        [Marking("a", 0x80)],
        [Marking("a", 0x01)],
        [Marking("two words", RSV2)],
        [Marking("", 0)],
        [PerMessageDeflate],
        ["permessage-deflate"],
    ],
)
def test_factories_that_get_in_each_others_way_are_refused(factories: list[object]) -> None:
    """F101, W-17: the same name or bit twice, no name, no bit, a class, something else."""
    with pytest.raises(ValueError, match="extensions"):
        check_factories(factories)


def test_a_class_is_told_from_an_object() -> None:
    """The error says what to write."""
    with pytest.raises(ValueError, match=r"write PerMessageDeflate\(\)"):
        check_factories([PerMessageDeflate])


@pytest.mark.parametrize(
    "factories",
    [
        [],
        [Marking("a", RSV1), Marking("b", RSV2), Marking("c", RSV3)],
        [Marking("a", 0), Marking("A", 0)],
        [Marking(None, 0), Marking(None, 0)],
        [Marking("a", RSV1 | RSV2 | RSV3)],
    ],
)
def test_factories_that_share_nothing_may_be_installed(factories: list[object]) -> None:
    """Names are compared with their case; those without a name may be many."""
    check_factories(factories)


# the server's side


@pytest.mark.parametrize("line", ["bad;", "a; b=", "é"])
@pytest.mark.parametrize("factories", [[], [PerMessageDeflate()]])
def test_an_offer_that_breaks_the_grammar_is_an_error(line: str, factories: list[ExtensionFactory]) -> None:
    """Also beside good lines, and where no extension is installed."""
    for lines in ([line], ["good", line], [line, "good"]):
        with pytest.raises(ValueError):
            negotiate(factories, lines)


def test_answers_and_extensions_are_in_the_order_of_installation() -> None:
    """Whatever the order of the offers; what was not offered, or is not installed, is left out."""
    factories = [Marking("b", 0), Marking(None, 0), Marking("a", 0), Marking("c", 0)]
    answers, extensions = negotiate(factories, ["x, a", "b"])
    assert [str(answer) for answer in answers] == ["b", "a"]
    assert names(extensions) == ["b", None, "a"]


def test_the_first_offer_that_is_liked_is_taken() -> None:
    """Those before it are declined, those behind it are not looked at."""
    answers, extensions = negotiate([Choosy("a")], ["a, a; one; two, a; b=1, a; c"])
    assert [str(answer) for answer in answers] == ["a; my-b=1"]
    assert names(extensions) == ["a"]


def test_names_are_compared_as_they_are() -> None:
    """With their case."""
    assert negotiate([Marking("a", 0)], ["A"]) == ([], ())


def test_one_without_a_name_may_stay_off() -> None:
    """It is asked with no parameters, and declines like any other."""
    assert negotiate([Choosy(None)], ["anything; x"]) == ([], ())


@given(st.text(max_size=200) | st.text('a;,= "\\\t', max_size=30))
def test_any_offer_gives_one_answer_or_none(line: str) -> None:
    """Or an error of one kind."""
    try:
        answers, extensions = negotiate([Marking("a", 0)], [line])
    except ValueError:
        return
    assert len(answers) == len(extensions) <= 1


# the client's side


def test_every_wish_is_offered() -> None:
    """In order; an extension without a name has nothing to offer."""
    assert offers([Choosy("a", "x", "y"), Choosy(None), Marking("b", 0)]) == "a; x, a; y, b"
    assert offers([]) == offers([Marking(None, 0)]) == ""


def test_extensions_work_in_the_order_of_the_answer() -> None:
    """RFC 6455 §9.1; one without a name stays where it is installed, one that is not answered is left out."""
    factories = [Marking("a", 0), Marking(None, 0), Choosy(None), Marking("b", 0), Marking("c", 0)]
    assert names(accept(factories, ["b", "a"])) == ["b", None, "a"]
    assert names(accept(factories, ["c, a, b"])) == ["c", None, "a", "b"]
    assert names(accept(factories, [])) == [None]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["b"], "'b' was not offered"),
        (["A"], "'A' was not offered"),
        (["a, a"], "'a' was not offered, or is answered twice"),
        (["a", "a"], "twice"),
        (["a;"], "Sec-WebSocket-Extensions breaks its grammar"),
        (["\xff"], "grammar"),
        (["choosy"], "answered 'choosy', which was not offered"),
    ],
)
def test_an_answer_that_is_none_to_the_offer_is_an_error(lines: list[str], error: str) -> None:
    """It names what is wrong."""
    with pytest.raises(ValueError, match=error):
        accept([Marking("a", 0), Choosy("choosy"), Marking(None, 0)], lines)


def test_a_long_name_is_not_shown_at_length() -> None:
    """Whatever a server says."""
    with pytest.raises(ValueError, match="was not offered") as error:
        accept([], ["x" * 5000])
    assert len(str(error.value)) < 300
