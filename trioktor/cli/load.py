"""Find the application that `trioktor serve module:name` names."""

from __future__ import annotations

import importlib
import sys

from ..application import Application


class LoadError(Exception):
    """What was asked for on the command line cannot be had; the text says why."""


def load_application(reference: str) -> Application:
    """Import `module:name`, with the working directory on the path.

    Raises:
      LoadError: there is no such module or name, or it is no `Application`.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise LoadError(f"{reference!r}: write MODULE:NAME, such as chat:app")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there, and imports something that is not
        raise LoadError(f"there is no module {error.name!r} here") from None
    application = getattr(module, name, None)
    if not isinstance(application, Application):
        found = "nothing" if application is None else f"a {type(application).__name__}"
        raise LoadError(f"{reference}: expected an Application, found {found}")
    return application
