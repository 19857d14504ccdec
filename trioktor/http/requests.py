"""The head of one HTTP/1.1 request, from bytes.

The head is collected and judged as it comes: its length, and every line of it. Bare line feeds, bare carriage
returns and folded lines, which a proxy in front may read differently (request smuggling), are refused, and so are
control characters. What is left is divided at its line ends and colons; no pattern has a choice that it could
take back, so the time grows with the length alone. What follows the head is the conversation's.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Final, final
from urllib.parse import unquote_to_bytes

import attrs

from .headers import Headers, Refusal

_END: Final = b"\r\n\r\n"
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
"""What no line of a head may hold (RFC 9110 §5.5); line ends are judged by themselves."""

_HEAD: Final = re.compile(
    rb"([A-Za-z][!#$%&'*+\-.^_`|~0-9A-Za-z]*+) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n(?![ \t])"
    rb"((?:[\t -~\x80-\xff]++\r\n(?![ \t]))*+)\r\n"
)
"""Method, target, version and lines of a whole head without control characters, bare line ends and folds.

Nothing that has matched is ever taken back.
"""
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://([^/?#]*)", re.IGNORECASE)
_HOST: Final = re.compile(
    r"(?:\[(?:([0-9A-Fa-f:.]+)|[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)"
    r"(?::[0-9]*)?"
)
"""uri-host [ ":" port ] of RFC 9110 §7.2; the first group is an IPv6 address."""

_PCHAR: Final = r"A-Za-z0-9\-._~!$&'()*+,;=:@"
"""What may stand in a segment of a path by itself (RFC 3986 §3.3)."""
_LITERAL: Final = re.compile(f"[{_PCHAR}]")
_NORMAL: Final = re.compile(rf"[{_PCHAR}/]*+(?:\?[^%]*+)?")
"""A target without escapes, and with nothing in its path that has to be escaped."""
_SPELLED: Final = re.compile(f"%([0-9A-Fa-f]{{2}})|[^{_PCHAR}/]")


@final
@attrs.frozen(repr=False)
class RequestHead:
    """The request line and headers of one request.

    Attributes:
      target: in origin form: path and query; the path in its one spelling, see `normal_form`.
      authority: the host and port that are asked for: those of a target that was a whole address, or else of
        the Host header.
    """

    method: str
    target: str
    http_version: str
    headers: Headers
    authority: str = ""
    is_upgrade: bool = attrs.field()
    """Whether the client asks for a WebSocket: by its headers (RFC 6455 §4.2.1, items 3 and 4), if nobody knows."""

    @is_upgrade.default
    def _has_upgrade(self) -> bool:
        index = self.headers.index()
        if index.get("connection") == ["Upgrade"] and index.get("upgrade") == ["websocket"]:  # most often
            return True
        return has_token(self.headers, "connection", "upgrade") and has_token(self.headers, "upgrade", "websocket")

    def __repr__(self) -> str:
        path = self.target.partition("?")[0]  # what stands behind it may be secret
        return f"<RequestHead {self.method} {path:.200}>"


def has_token(headers: Headers, name: str, token: str) -> bool:
    """Whether a header has a value among others, in whatever case."""
    return any(value.lower() == token for value in headers.tokens(name))


class HeadReader:
    """Collect the bytes of one request head, whatever pieces they come in.

    Args:
      max_size: the bytes that the head may have, its empty line included.
      max_headers: how many header lines it may have.
    """

    __slots__ = ("_data", "_max_headers", "_max_size", "_scanned")

    def __init__(self, max_size: int, max_headers: int) -> None:
        self._max_size = max_size
        self._max_headers = max_headers
        self._data = bytearray()
        self._scanned = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self._data

    def feed(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """Add bytes; returns the head and what follows it once it is complete, None until then.

        Raises:
          Refusal: the bytes are no acceptable request head, with the status to answer.
        """
        head = self._data
        if not head and (found := _HEAD.match(data)) and found.end() <= self._max_size:  # most often
            head += data
            return self._judge(*found.groups()), data[found.end() :]
        head += data
        if head.startswith((b"\r", b"\n")):
            self._skip_empty_lines()
        # Each byte is looked at once, or a head sent byte by byte would cost the square of its length.
        start = max(0, self._scanned - len(_END) + 1)
        end = head.find(_END, start)
        size = len(head) if end < 0 else end + len(_END)
        self._check_lines(head, start, min(size, self._max_size))
        if size > self._max_size:
            raise Refusal(431, f"the request head is longer than {self._max_size} bytes")
        self._scanned = size
        if end < 0:
            return None
        if (whole := _HEAD.match(head)) is None:
            raise Refusal(400, "this is not an acceptable HTTP request")
        return self._judge(*whole.groups()), bytes(head[size:])

    def _skip_empty_lines(self) -> None:
        """Pass over empty lines before the request (RFC 9112 §2.2); they count as bytes of the head."""
        head = self._data
        empty = len(head) - len(head.lstrip(b"\r\n"))
        lines = bytes(head[:empty])
        is_half = lines.endswith(b"\r") and empty == len(head)  # its line feed is still to come
        if lines.replace(b"\r\n", b"") != b"\r" * is_half:
            raise Refusal(400, "this is not an HTTP request")
        self._max_size -= empty - is_half
        del head[: empty - is_half]
        self._scanned = 0

    @staticmethod
    def _check_lines(head: bytearray, start: int, stop: int) -> None:
        if not head[:1].isalpha() and head.strip(b"\r"):
            raise Refusal(400, "this is not an HTTP request")
        fresh = head[start:stop]
        if len(fresh.translate(None, _CONTROLS)) != len(fresh):
            raise Refusal(400, "the request head holds a control character")
        # RFC 9112 §2.2 lets a recipient take a bare line feed for a line end and has it refuse a bare CR, §5.2
        # has it refuse folding. The last byte may be a CR whose line feed is still to come.
        if fresh.count(b"\r", 0, -1) != fresh.count(b"\r\n"):
            raise Refusal(400, "a line of the request head does not end with CR LF")
        is_seen = start > 0 and fresh.startswith(b"\n")  # with the carriage return before it, in the last piece
        if fresh.count(b"\n") - is_seen != fresh.count(b"\r\n"):
            raise Refusal(400, "a line of the request head does not end with CR LF")
        if b"\n " in fresh or b"\n\t" in fresh:
            raise Refusal(400, "a header is folded over several lines")

    def _judge(self, method: bytes, raw_target: bytes, version: bytes, lines: bytes) -> RequestHead:
        if lines.count(b"\r\n") > self._max_headers:
            raise Refusal(431, f"the request has more than {self._max_headers} headers")
        headers = Headers(lines=lines[:-2])
        index = headers.index()
        if version not in (b"1.0", b"1.1"):
            raise Refusal(400, "this server speaks HTTP/1.1")
        hosts = index.get("host", [])
        if len(hosts) != 1 and (hosts or version == b"1.1"):  # RFC 9112 §3.2
            raise Refusal(400, "a request names one host")
        # A body would be read as frames, or hide a second request from a proxy in front.
        if "transfer-encoding" in index or ("content-length" in index and set(index["content-length"]) != {"0"}):
            raise Refusal(400, "a request with a body is not served here")
        target, authority = origin_form(method, str(raw_target, "ascii"))
        target = normal_form(target)
        for host in hosts if authority is None else [*hosts, authority]:
            if not _is_host(host):
                raise Refusal(400, "the host that is asked for is none")
        return RequestHead(
            "GET" if method == b"GET" else str(method, "ascii"),  # one string for most connections
            target,
            "1.1" if version == b"1.1" else "1.0",
            headers,
            authority if authority is not None else "".join(hosts),
        )


def origin_form(method: bytes, target: str) -> tuple[str, str | None]:
    """The path and query of a target, and its authority, if it has one.

    RFC 9112 §3.2.2 has servers accept whole addresses, and ignore the Host header beside them.
    """
    if target.startswith("/") or (target == "*" and method == b"OPTIONS"):
        return target, None
    found = _ABSOLUTE.match(target)
    if found is None or not found[1]:
        raise Refusal(400, "the target of the request is neither a path nor a whole address")
    rest = target[found.end() :]
    return rest if rest.startswith("/") else "/" + rest, found[1]


def normal_form(target: str) -> str:
    """A target with the one spelling that its path has: what may stand in it by itself is not escaped, the rest is.

    Routes match the decoded path; so two spellings of one path would be one route and, for a hook that looks at the
    path, two. That is more than RFC 3986 §6.2.2 asks for: there ":" and "%3A" may differ. What is no UTF-8 is refused:
    replaced, two paths would be one.
    """
    if _NORMAL.fullmatch(target):
        return target
    path, question, query = target.partition("?")
    path = _SPELLED.sub(_spelling, path)
    try:
        unquote_to_bytes(path).decode()
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise Refusal(400, "the target of the request is not UTF-8") from None
    return path + question + query


def _spelling(found: re.Match[str]) -> str:
    if found[1] is None:
        return f"%{ord(found[0]):02X}"
    character = chr(int(found[1], 16))
    return character if _LITERAL.match(character) else found[0].upper()


@functools.lru_cache(maxsize=64)
def _is_host(host: str) -> bool:
    """Whether this is a host (RFC 9112 §3.2)."""
    found = _HOST.fullmatch(host)
    try:
        if found is not None and found[1]:
            ipaddress.IPv6Address(found[1])
    except ValueError:
        return False
    return found is not None
