"""Find the application that `trioktor serve module:name` names."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from ..server.application import Application
from ..server.serve import Import, current_import


class LoadError(Exception):
    """What was asked for on the command line cannot be had; the text says why."""


def load_application(reference: str) -> Application:
    """Import `module:name`, with the working directory on the path.

    Raises:
      LoadError: there is no such module or name, or it is no `Application`, or the module starts a server.
      BaseException: what the module raises.
    """
    module_name, _, name = reference.partition(":")
    if not name or not _is_module_name(module_name):
        dotted = module_name.removesuffix(".py").removeprefix("./").replace("/", ".")
        if name and _is_module_name(dotted):
            raise LoadError(f"{reference!r}: write {dotted}:{name}, the module and not its file")
        raise LoadError(f"{reference!r}: write MODULE:NAME, such as chat:app")
    module = _import(module_name)
    application = getattr(module, name, None)
    if not isinstance(application, Application):
        found = "nothing" if application is None else f"a {type(application).__name__}"
        raise LoadError(f"{reference}: expected an Application, found {found}")
    return application


def _is_module_name(name: str) -> bool:
    return all(map(str.isidentifier, name.split("."))) and not name.endswith(".py")


def _import(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())  # and not "", which follows a module that changes its directory
    attempt = Import()
    token = current_import.set(attempt)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise  # the module is there, and imports something that is not
        raise LoadError(f"there is no module {error.name!r} here") from None
    finally:
        current_import.reset(token)
        if attempt.has_served:  # whatever has become of the refusal
            raise LoadError(
                f'importing {name!r} starts a server: put that under `if __name__ == "__main__":`,'
                " and leave it to this command"
            ) from None
