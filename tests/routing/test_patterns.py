"""Ktor's pattern language: which pattern serves which path, and with which parameters (F22)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from trioktor.http.requests import normal_form
from trioktor.routing.patterns import Pattern, RouteTable, join


def found(patterns: Sequence[str], path: str) -> list[str]:
    """The patterns that match a path, the best first."""
    table: RouteTable[str] = RouteTable()
    for pattern in patterns:
        table.add(Pattern(pattern), pattern)
    return [pattern for pattern, _ in table.find(path)]


def parameters(pattern: str, path: str) -> Mapping[str, str] | None:
    """What a pattern takes out of a path, or None if it does not match."""
    table: RouteTable[None] = RouteTable()
    table.add(Pattern(pattern), None)
    for _, values in table.find(path):
        return values
    return None


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        # constant segments
        ("/", "/", {}),
        ("/chat", "/chat", {}),
        ("chat", "/chat", {}),
        ("/chat", "/Chat", None),
        ("/chat", "/chats", None),
        ("/chat", "/cha", None),
        ("/a/b", "/a/b", {}),
        ("/a/b", "/a", None),
        ("/a", "/a/b", None),
        ("/", "/a", None),
        ("/a", "/", None),
        # one segment with a name
        ("/{id}", "/7", {"id": "7"}),
        ("/{id}", "/", None),
        ("/{id}", "/7/8", None),
        ("/a/{id}/b", "/a/7/b", {"id": "7"}),
        ("/a/{id}/b", "/a//b", None),
        ("/{a}/{b}", "/1/2", {"a": "1", "b": "2"}),
        ("/{snake_case_2}", "/x", {"snake_case_2": "x"}),
        # text round a name
        ("/user-{id}", "/user-7", {"id": "7"}),
        ("/user-{id}", "/user-", None),
        ("/user-{id}", "/group-7", None),
        ("/{id}.json", "/7.json", {"id": "7"}),
        ("/{id}.json", "/.json", None),
        ("/v{n}.x", "/v12.x", {"n": "12"}),
        ("/aa{n}aa", "/aaa", None),
        # one segment without a name
        ("/*", "/x", {}),
        ("/*", "/", None),
        ("/*", "/x/y", None),
        ("/a/*/c", "/a/b/c", {}),
        # one segment or none
        ("/a/{id?}", "/a/7", {"id": "7"}),
        ("/a/{id?}", "/a", {}),
        ("/a/{id?}", "/a/", None),
        ("/{id?}", "/", {}),
        ("/{id?}", "/7", {"id": "7"}),
        ("/{id?}", "//", None),
        ("/{id?}", "/7/", None),
        ("/a/{id?}", "/a/7/8", None),
        # all that is left
        ("/a/{rest...}", "/a/b", {"rest": "b"}),
        ("/a/{rest...}", "/a/b/c", {"rest": "b/c"}),
        ("/a/{rest...}", "/a", {"rest": ""}),
        ("/a/{rest...}", "/b", None),
        ("/{rest...}", "/", {"rest": ""}),
        ("/a/{...}", "/a/b/c", {}),
        ("/a/{...}", "/a", {}),
        # a slash at the end counts
        ("/a", "/a/", None),
        ("/a/", "/a", None),
        ("/a/", "/a/", {}),
        ("/{id}", "/7/", None),
        ("/{id}/", "/7/", {"id": "7"}),
        # percent-encoding
        ("/{id}", "/a%20b", {"id": "a b"}),
        ("/{id}", "/%C3%A9", {"id": "é"}),
        ("/{id}", "/a%2Fb", {"id": "a/b"}),
        ("/{id}", "/a+b", {"id": "a+b"}),
        ("/caf%C3%A9", "/caf%C3%A9", {}),
        ("/café", "/caf%C3%A9", {}),
        ("/caf%C3%A9", "/caf%c3%a9", {}),
        ("/chat", "/%63hat", {}),
        ("/a/b", "/a%2Fb", None),
        ("/*", "/a%2Fb", {}),
        ("/a/{rest...}", "/a/b%20c/d", {"rest": "b c/d"}),
        ("/x-{id}", "/x-%31", {"id": "1"}),
    ],
)
def test_a_pattern_takes_its_parameters_out_of_a_path(pattern: str, path: str, expected: dict[str, str] | None) -> None:
    """F22: every form of segment, matched and not matched."""
    assert parameters(pattern, path) == expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (
            ["/{rest...}", "/*", "/{id}", "/x{id}", "/xy"],
            "/xy",
            ["/xy", "/x{id}", "/{id}", "/*", "/{rest...}"],
        ),
        (
            ["/a/{rest...}", "/a/{id?}", "/a"],
            "/a",
            ["/a", "/a/{id?}", "/a/{rest...}"],
        ),
        (["/a/{rest...}", "/a/{id?}"], "/a/7", ["/a/{id?}", "/a/{rest...}"]),
        (["/{a}/c", "/b/{c}"], "/b/c", ["/b/{c}", "/{a}/c"]),
        (["/{a}/c", "/*/{b}"], "/x/c", ["/{a}/c", "/*/{b}"]),
        (["/x/{rest...}", "/{a}/y"], "/x/y", ["/x/{rest...}", "/{a}/y"]),
        (["/{first}", "/{second}"], "/x", ["/{first}", "/{second}"]),
        (["/{second}", "/{first}"], "/x", ["/{second}", "/{first}"]),
        (["/a{x}", "/{x}b"], "/ab2b", ["/a{x}", "/{x}b"]),
        (["/{...}"], "/any/thing", ["/{...}"]),
        (["/{id}", "/{id}/{rest...}"], "/x", ["/{id}", "/{id}/{rest...}"]),
        (["/{id}", "/{id}/{more?}"], "/x", ["/{id}", "/{id}/{more?}"]),
        (["/a", "/a/{rest...}"], "/%61", ["/a", "/a/{rest...}"]),
    ],
    ids=["all-kinds", "missing", "present", "first-segment", "named-first", "constant-before-tail", "order", "order-2",
         "affixes", "tail", "ended-before-tail", "ended-before-missing", "ended-before-tail-encoded"],
)  # fmt: skip
def test_the_better_match_comes_first(patterns: list[str], path: str, expected: list[str]) -> None:
    """F22: constant > with text > named > star > missing > tail; between equals the first registered."""
    assert found(patterns, path) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "/{",
        "/}",
        "/{id",
        "/id}",
        "/{}",
        "/{1st}",
        "/{a-b}",
        "/{a}{b}",
        "/{{a}}",
        "/x{id?}",
        "/{id?}x",
        "/x{rest...}",
        "/{rest...}x",
        "/{?}",
        "/x{...}",
        "/{id?}/more",
        "/{rest...}/more",
        "/{...}/more",
        "/{id}/{id}",
        "/{id}/x/{id...}",
    ],
)
def test_a_malformed_pattern_is_refused_with_its_text(pattern: str) -> None:
    """F22: optional and tail parameters come last and alone, names once; the error shows the pattern."""
    with pytest.raises(ValueError) as refusal:
        Pattern(pattern)
    assert repr(pattern) in str(refusal.value)


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("", "/a", "/a"),
        ("", "a", "/a"),
        ("", "", "/"),
        ("", "/", "/"),
        ("/a", "b", "/a/b"),
        ("/a", "/b", "/a/b"),
        ("/a/", "/b", "/a/b"),
        ("/a/", "b", "/a/b"),
        ("/a", "", "/a"),
        ("/a", "/", "/a/"),
        ("/a", "/b/", "/a/b/"),
        ("/{id}", "{rest...}", "/{id}/{rest...}"),
    ],
)
def test_paths_join_with_one_slash(prefix: str, path: str, expected: str) -> None:
    """F22: nesting does not depend on who wrote the slash; one at the end still counts."""
    assert join(prefix, path) == expected


def test_a_table_gives_back_what_was_added_under_a_pattern() -> None:
    """The same finds it, however it is spelled; another does not."""
    table: RouteTable[str] = RouteTable()
    table.add(Pattern("/a/{id}"), "here")
    table.add(Pattern("/caf\u00e9:/{id}"), "there")
    table.add(Pattern("/caf%C3%A9"), "nowhere")
    assert table.get(Pattern("/a/{id}")) == "here"
    assert table.get(Pattern("/caf%c3%a9%3A/{id}")) == "there"
    assert table.get(Pattern("/caf\u00e9")) == "nowhere"
    table.add(Pattern("/\u00e9{x}-\u00e8"), "beside")
    assert table.get(Pattern("/%C3%A9{x}-%c3%a8")) == "beside"
    assert [target for target, _ in table.find("/%C3%A97-%C3%A8")] == ["beside"]
    for other in ("/a/7", "/a/{name}", "/a%2F{id}", "/a/{id}/", "/caf\u00e8"):
        assert table.get(Pattern(other)) is None


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("/caf%C3%A9", "/caf\u00e9"),
        ("/a%2Fb", "/a%2fb"),
        ("/a:b@c", "/a%3Ab%40c"),
        ("/%25", "/%25"),
        ("/~x!$&'()*+,;=", "/%7Ex%21$&'()%2A+,;="),
        ("/a//b/", "a//b/"),
        ("/", ""),
    ],
)
def test_a_path_is_found_at_once_by_its_one_spelling(path: str, spelled: str) -> None:
    """Which a request has by then: it is the key of its pattern, however that was written."""
    assert normal_form(path) == path == Pattern(path).key == Pattern(spelled).key
