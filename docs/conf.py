"""How Sphinx builds the documentation: `sphinx-build -W -b html docs BUILD`."""

from __future__ import annotations

import trioktor

project = "trioktor"
author = "the authors of trioktor"
release = version = trioktor.__version__

extensions = [
    "myst_parser",  # the pages are Markdown, so that they read well in a repository, too
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",  # shows async methods as what they are
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository
]

html_theme = "alabaster"
html_theme_options = {"description": "Ktor's WebSockets on Trio", "fixed_sidebar": True}
highlight_language = "python"
