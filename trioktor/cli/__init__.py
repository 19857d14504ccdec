"""The `trioktor` command: an echo server to play with, a client, and a runner for one's own application."""

from __future__ import annotations

import argparse
import errno
import logging
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, final

from .. import __version__
from ..protocol.native import is_native
from ..server.application import Application
from ..server.listeners import inherited_listeners
from ..server.run import run
from .connect import add_connect_arguments, connect
from .echo import add_echo_arguments, echo_application
from .load import LoadError, load_application
from .terminal import speak_to_any_terminal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trioktor", description="WebSockets as Ktor has them, on Trio.")
    kind = "native" if is_native else "pure Python"
    parser.add_argument("--version", action="version", version=f"trioktor {__version__} ({kind})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    echo = commands.add_parser("echo", help="serve an echo at / and /echo, and a page to try it at /")
    _add_server_arguments(echo)
    add_echo_arguments(echo)

    serve = commands.add_parser("serve", help="serve an application of your own")
    serve.add_argument("application", metavar="MODULE:NAME", help="where the Application is, such as chat:app")
    _add_server_arguments(serve)

    add_connect_arguments(commands.add_parser("connect", help="talk to a WebSocket server, line by line"))
    return parser


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to listen")
    group.add_argument("--host", default="127.0.0.1", help="address or name (default: %(default)s)")
    group.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    group.add_argument("--unix", metavar="PATH", help="a UNIX socket instead of a port")
    group.add_argument("--unix-mode", type=octal, metavar="OCTAL", help="who may connect to it, such as 660")
    group.add_argument("--listen-fds", action="store_true", help="sockets that a supervisor hands over (LISTEN_FDS)")
    group.add_argument("--certificate", metavar="FILE", help="PEM file with the certificate chain: speak TLS")
    group.add_argument("--key", metavar="FILE", help="PEM file with its private key, if that is another file")
    group.add_argument("--shutdown-grace", type=float, default=5, metavar="SECONDS", help="(default: %(default)s)")
    group.add_argument("--quiet", action="store_true", help="no line for each connection")


def octal(text: str) -> int:
    return int(text, 8)


def _server_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "port": arguments.port,
        "host": arguments.host,
        "shutdown_grace": arguments.shutdown_grace,
    }
    if arguments.unix is not None:
        options["path"] = arguments.unix
    if arguments.unix_mode is not None:
        if arguments.unix is None:
            raise LoadError("--unix-mode goes with --unix")
        options["mode"] = arguments.unix_mode
    if arguments.listen_fds:
        try:
            options["listeners"] = inherited_listeners()
        except RuntimeError as error:
            raise LoadError(str(error)) from None
    if arguments.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(arguments.certificate, arguments.key)
        except OSError as error:
            files = " or ".join(name for name in (arguments.certificate, arguments.key) if name is not None)
            why = describe_error(error)
            if isinstance(error, ssl.SSLError):  # it speaks of OpenSSL's own source
                why = f"not a certificate and its key in PEM ({error.reason})"
            raise LoadError(f"cannot use {files}: {why}") from None
        options["ssl_context"] = context
    elif arguments.key is not None:
        raise LoadError("--key goes with --certificate")
    return options


@final
class _Lines(logging.StreamHandler[TextIO]):
    """A server goes on when nobody reads its lines any more, or there is no room for them."""

    def handleError(self, record: logging.LogRecord) -> None:  # the name is logging's
        """Nothing of that; anything else as ever."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _set_up_logging(*, quiet: bool) -> None:
    """Lines about connections go to standard output, trouble to standard error.

    Where the application has set up logging itself, every line has its place already.
    """
    root = logging.getLogger("trioktor")
    if root.hasHandlers():
        if quiet:
            sessions = logging.getLogger("trioktor.session")
            sessions.setLevel(max(logging.WARNING, sessions.getEffectiveLevel()))
        return
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    lines = _Lines(sys.stdout)
    lines.addFilter(lambda record: record.levelno < logging.WARNING)
    trouble = _Lines(sys.stderr)
    trouble.setLevel(logging.WARNING)
    trouble.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if not quiet:
        logging.getLogger("trioktor.session").setLevel(logging.DEBUG)  # a line for every connection that opens
    root.addHandler(lines)
    root.addHandler(trouble)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one line on standard error.

    Raises:
      SystemExit: with status 0, 1 (something failed), 2 (wrong arguments), 130 (Ctrl-C before it listens).
    """
    speak_to_any_terminal()
    arguments = _parser().parse_args(argv)
    application: Application | None = None
    if arguments.command == "serve":
        with _one_line(arguments.command, LoadError):  # any other error is the module's, and shows its traceback
            application = load_application(arguments.application)
    with _one_line(arguments.command, LoadError, OSError, ValueError):
        if arguments.command == "connect":
            sys.exit(connect(arguments))
        if application is None:
            application = echo_application(arguments)
        options = _server_options(arguments)
        _set_up_logging(quiet=arguments.quiet)
        _run(application, options)


@contextmanager
def _one_line(command: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say in one line what went wrong, and leave."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except kinds as error:
        print(f"trioktor {command}: {describe_error(error)}", file=sys.stderr)
        sys.exit(1)


def _run(application: Application, options: dict[str, Any]) -> None:
    try:
        run(application, **options)
    except OSError as error:
        where = options.get("path") or f"{options['host']}:{options['port']}"
        error.filename = None  # named already
        is_taken = error.errno == errno.EADDRINUSE and "path" not in options
        hint = "; take another --port, or 0 for a free one" if is_taken else ""
        raise LoadError(f"cannot listen on {where}: {describe_error(error)}{hint}") from None


def describe_error(error: Exception) -> str:
    """One line that a person can act on."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        name = errno.errorcode.get(error.errno)  # a lookup that failed has a number of its own
        return f"{error.strerror}{where}" + (f" [{name}]" if name else "")
    return " ".join(str(error).split()) or type(error).__name__
