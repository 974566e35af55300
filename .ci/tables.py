"""Write the tables of solvers in docs/choosing.md anew from pymlpgf/facts.json: `make facts` runs this."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "choosing.md"
FACTS = ROOT / "pymlpgf" / "facts.json"


def table(section: dict[str, dict], matrices: bool) -> str:
    """A row for each method of our own: "auto" first, the others in the order in which Julia includes them."""
    rows = [["method", "what it is", *(["P × P matrices"] if matrices else []), "when"]]
    rows.append(["---"] * len(rows[0]))
    for name, method in sorted(section.items(), key=lambda item: item[0] != "auto"):
        if method["provider"] == "builtin":
            kept = [str(method["matrices"]) if name != "auto" else "as these"] if matrices else []
            rows.append([f'`"{name}"`', method["summary"], *kept, method.get("when", "")])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written(text: str, facts: dict[str, dict]) -> str:
    """The page ``text`` with its tables as they follow from ``facts``."""
    for name in ("flow_methods", "minimizers"):
        begin, end = f"<!-- {name}: make facts -->\n", "<!-- end -->"
        new = f"{begin}\n{table(facts[name], matrices=name == 'minimizers')}\n{end}"
        text, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _, new=new: new, text, flags=re.S)
        assert count == 1, f"{PAGE.name} has {count} tables of {name}"
    return text


if __name__ == "__main__":
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), facts), encoding="utf-8")
