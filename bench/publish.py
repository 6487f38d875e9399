"""Put tables into pages: publish.py PAGE:NAME=TABLE...

In each page, what lies between the lines ``<!-- NAME -->`` and ``<!-- /NAME -->`` becomes the
content of the file TABLE.
"""

from __future__ import annotations

import sys
from pathlib import Path


def replaced(text: str, name: str, table: str) -> str:
    """The text with another table; SystemExit if it has no place for it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, is_begun, rest = text.partition(begin)
    _, is_ended, after = rest.partition(end)
    if not (is_begun and is_ended):
        raise SystemExit(f"publish.py: there is no {begin.strip()} ... {end.strip()}")
    return f"{before}{begin}{table.rstrip()}\n{end}{after}"


def main() -> None:
    """Run the command line."""
    for word in sys.argv[1:]:
        place, _, table = word.partition("=")
        page, _, name = place.rpartition(":")
        path = Path(page)
        text = path.read_text(encoding="utf-8")
        path.write_text(
            replaced(text, name, Path(table).read_text(encoding="utf-8")), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
