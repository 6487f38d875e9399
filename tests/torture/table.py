"""The table of README.md: a line a pain, what becomes of it under either start method."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

from pains import Pain

BEGIN, END = "<!-- torture -->\n", "<!-- /torture -->"


def as_markdown(pains: list[Pain], ours: dict[str, str], stock: dict[str, str]) -> str:
    """The table. ours, stock: the label of a pain, or "storm" -> how it ended."""
    rows = ["| pain | stock multiprocessing | dragon |", "|---|---|---|"]
    for _, group in itertools.groupby(
        pains, lambda p: (p.program, ours[p.label], stock.get(p.label, "-"))
    ):
        same = list(group)
        cells = stock.get(same[0].label, "-"), ours[same[0].label]
        rows.append(f"| {_what(same)} | {' | '.join(map(_shown, cells))} |")
    if "storm" in ours:
        what = "Random members of a program with queues, a pool and a manager are killed"
        rows.append(f"| {what} | {_shown(stock['storm'])} | {_shown(ours['storm'])} |")
    return "\n".join(rows) + "\n"


def replace_in(path: Path, table: str) -> None:
    """Put the table between the marks of a file."""
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + BEGIN + table + END + rest.split(END, 1)[1])


def _what(pains: list[Pain]) -> str:
    """The pain in words, with its cases."""
    program = Path(__file__).parent / "programs" / f"{pains[0].program}.py"
    text = (ast.get_docstring(ast.parse(program.read_text())) or "").splitlines()[0]
    names = ", ".join(pain.name for pain in pains if pain.name)
    if not names:
        return text
    return f"{text} {names}" if text.endswith(" has") else f"{text}: {names}"


def _shown(words: str) -> str:
    """How it ended: what must not happen in bold, names of exceptions as such."""
    parts = []
    for part in words.split(", "):
        first, _, rest = part.partition(" ")
        if first == "raises":
            parts.append(f"`{rest}`")
        elif first in ("hangs", "leaves") or part.endswith("hang"):
            parts.append(f"**{part}**")
        else:
            parts.append(part)
    return ", ".join(parts)
