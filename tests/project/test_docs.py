"""The code of every page of docs/ and of the notebooks runs as it stands, and prints what the pages say."""

from __future__ import annotations

import contextlib
import doctest
import hashlib
import io
import itertools
import json
import re
import runpy
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib
import pytest

import pymlpgf
from pymlpgf.sweeps import pool as workers, run as worker

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "developers")  # these: test_developers.py
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BLOCK = re.compile(r"^```(python|text|julia)\n(.*?)^```$", re.S | re.M)

SAME = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, code and line of each block of a page."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in BLOCK.finditer(text)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(code: str, where: str, line: int, namespace: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n" * line + code, where, "exec"), namespace)
    return out.getvalue()


def run_here(pickled, jobs, count, threads):
    """A sweep without processes, each of which would compile the solvers anew; those are tested in test_sweep.py."""
    for index, file_name, point in jobs:
        yield worker.run_one(hashlib.sha256(pickled).hexdigest(), pickled, index, file_name, point)


@pytest.mark.parametrize("page", [p for p in PAGES if any(b[0] == "python" for b in blocks(p))], ids=name)
def test_python_of_a_page(page, tmp_path, monkeypatch):
    """All blocks of a page share one namespace; what one prints stands in the block after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "run_in_processes", run_here)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)  # functions of a page that sweeps over them are found by name
    namespace = vars(main)
    found = [*blocks(page), ("", "", 0)]
    for (language, code, line), (following, expected, _) in itertools.pairwise(found):
        if language != "python":
            continue
        printed = run(code, str(page), line, namespace)
        if printed:
            assert following == "text", f"line {line} prints, and no text block follows:\n{printed}"
            assert SAME.check_output(expected, printed, FLAGS), f"line {line} prints\n{printed}\nnot\n{expected}"


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name)
def test_notebook(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(page.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        run("".join(cell["source"]), f"{page.name}, cell {number}", 0, namespace)


def test_julia_of_all_pages(tmp_path):
    """The README and each page in a module of its own, all in one process; the README's Python in test_packaging.py."""
    modules = []
    for number, page in enumerate([ROOT / "README.md", *PAGES, ROOT / "julia/README.md"]):
        code = "\n".join(code for language, code, _ in blocks(page) if language == "julia")
        if code:
            modules.append(f"module Page{number}\n{code}\nend\n")
    assert modules
    script = tmp_path / "pages.jl"
    script.write_text("".join(modules), encoding="utf-8")
    command = [sys.executable, "-m", "pymlpgf", "julia", "--startup-file=no", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) < 1e-4  # the README's loss
    assert "roundoff: true" in done.stdout


def test_every_public_name_is_in_the_reference():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    missing = [n for n in pymlpgf.__all__ if not re.search(rf"\b{n}\b", reference)]
    # Errors come as the members of their module.
    assert [n for n in missing if not n.endswith("Error") and n != "RuntimeUnavailable"] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for needed in ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "math_core", "ziamath"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_is_built_without_warnings(site):
    assert "Integrate the gradient flow" in (site / "api.html").read_text(encoding="utf-8")


class Loaded(HTMLParser):
    """What a browser fetches by itself to show a page, and how many formulas there are."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []
        self.formulas = 0

    def handle_starttag(self, tag, attrs):
        self.formulas += tag == "math"
        attributes = dict(attrs)
        self.addresses += [attributes[name] for name in ("src", "srcset", "data") if name in attributes]
        if tag == "link" and attributes["rel"] not in ("index", "search", "next", "prev"):
            self.addresses.append(attributes["href"])


def test_the_site_needs_no_network(site):
    """Every script, style, font and figure is a file of the site, and formulas are MathML."""
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses, page
        for address in loaded.addresses:
            assert not re.match(r"//|[a-z]+:", address), f"{page.name} loads {address}"
            file = (page.parent / unquote(urlsplit(address).path)).resolve()
            assert file.is_file(), f"{page.name} refers to {address}, which is not there"
    for style in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s;]+)", style.read_text(encoding="utf-8")):
            if not address.startswith("data:"):
                assert (style.parent / urlsplit(address).path).is_file(), f"{style.name} refers to {address}"


def test_every_formula_of_the_site_is_mathml(site):
    for page in PAGES:
        source = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        loaded = Loaded()
        loaded.feed((site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8"))
        assert loaded.formulas == len(re.findall(r"\$\$.+?\$\$|\$.+?\$", source, re.S)), page
    assert "<msqrt>" in (site / "mathematics.html").read_text(encoding="utf-8")


def test_figures_of_the_first_page(tmp_path):
    """The program that draws them runs, and draws the numbers that docs/performance.md states."""
    front = runpy.run_path(str(DOCS / "figures" / "front.py"))
    front["flow_and_minimum"](tmp_path)
    front["speed"](tmp_path)
    for figure in ("flow_and_minimum.png", "speed.png", "minimum.png"):  # `pymlpgf bench` draws the last
        assert (tmp_path / figure if figure != "minimum.png" else DOCS / "figures" / figure).read_bytes()[1:4] == b"PNG"
        assert f"(docs/figures/{figure})" in (ROOT / "README.md").read_text(encoding="utf-8")
        assert f"(figures/{figure})" in (DOCS / "index.md").read_text(encoding="utf-8")
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    milliseconds, flows = front["flow_seconds"](text)
    row = re.search(r"^\| 1 000 \| 1e-6 \| .*$", text.replace("\u00a0", " "), re.M)[0]
    for number in (f"| {milliseconds:g} |", f"({flows['SciPy LSODA']:g})", f"({flows['SciPy Radau']:g})"):
        assert number in row
    described = (DOCS / "index.md").read_text(encoding="utf-8")
    gradients, hessians = front["derivative_ratios"](text)
    for found in (gradients, hessians):
        words = ", ".join(f"{name} {found[name]:g}" for name in ("MLPGradientFlow.jl", "JAX", "PyTorch"))
        assert words in described.replace("\n", " "), "the description of the figure has other numbers"


def test_promises_name_tests_that_exist():
    """The tables of docs/reliability.md."""
    named = re.findall(
        r"`((?:test_\w+\.py)?(?:::)?(?:test_\w+)?(?:tests/[\w/]+\.py)?)`", (DOCS / "reliability.md").read_text("utf-8")
    )
    assert len(named) > 20
    file = ""
    for entry in named:
        path, _, function = entry.partition("::") if ".py" in entry else (file, "", entry)
        file = path
        (found,) = (ROOT / "tests").rglob(Path(path).name)
        source = found.read_text("utf-8")
        assert not function or f"def {function}(" in source, entry
