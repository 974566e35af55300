"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

import ziamath
from docutils.nodes import SkipNode
from math_core import LatexError, LatexToMathML
from sphinx.errors import ExtensionError

_face = (Path(__file__).parents[1] / "pymlpgf" / "version.py").read_text(encoding="utf-8")

project = "pymlpgf"
author = "pymlpgf developers"
copyright = author
version = release = re.search(r'__version__ = "(.+?)"', _face)[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pymlpgf"
# Not every system has a mathematical font; ziamath brings one along.
html_static_path = ["static", str(Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf")]
html_css_files = ["pymlpgf.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_mock_imports = ["torch"]
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"

# Formulas become MathML while the site is built, so that pages need neither a script nor the network.
_mathml = LatexToMathML()


def _write_formula(writer, node, *, displaystyle):
    try:
        formula = _mathml.convert_with_local_state(node.astext(), displaystyle=displaystyle)
    except LatexError as error:
        raise ExtensionError(f"{node.source}: cannot convert ${node.astext()}$: {error}") from error
    writer.body.append(f'<div class="formula">{formula}</div>' if displaystyle else formula)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        (lambda writer, node: _write_formula(writer, node, displaystyle=False), None),
        (lambda writer, node: _write_formula(writer, node, displaystyle=True), None),
    )
