"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

_face = (Path(__file__).parents[1] / "pymlpgf" / "version.py").read_text(encoding="utf-8")

project = "pymlpgf"
author = "pymlpgf developers"
copyright = author
version = release = re.search(r'__version__ = "(.+?)"', _face)[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pymlpgf"
html_static_path = []

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_mock_imports = ["torch"]
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"
