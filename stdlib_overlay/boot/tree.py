"""Build step: copy the packages and the extension module into one importable folder.

usage: tree.py FOLDER SOURCE_ROOT STAMP EXTENSION FILE...
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(folder: str, source_root: str, stamp: str, extension: str, *files: str) -> None:
    """Copy each FILE to its place below FOLDER, the extension to the top; write the stamp."""
    target = Path(folder)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy2(extension, target)
    for file in files:
        place = target / Path(file).resolve().relative_to(Path(source_root).resolve())
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    Path(stamp).write_text("")


if __name__ == "__main__":
    main(*sys.argv[1:])
