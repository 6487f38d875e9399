#!/usr/bin/env dragon
"""A command of its own: with `dragon` on PATH, this file runs like any other program.

It prints the SHA-256 checksum of each file on the command line, in the form of sha256sum, the
files shared out to a pool of workers. Without arguments it takes the examples themselves.
`./07_checksum_script.py *.iso | sha256sum --check` is a way to see that it is right.

Run it:             ./07_checksum_script.py [FILE...]
With plain Python:  python3 07_checksum_script.py --method spawn [FILE...]
"""

import argparse

parser = argparse.ArgumentParser(description="Print SHA-256 checksums.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
parser.add_argument("files", nargs="*", metavar="FILE")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import hashlib
import multiprocessing as mp
import sys
from pathlib import Path


def checksum(path: str) -> str:
    """Return the line for one file: its checksum, or why it could not be read."""
    try:
        with open(path, "rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}"
    except OSError as error:
        return f"FAILED {path}: {error.strerror}"


def main() -> int:
    """Print the checksums in the order of the arguments; return the exit status."""
    mp.set_start_method(args.method)
    files = args.files or sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
    all_read = True
    with mp.Pool(4) as pool:
        for line in pool.imap(checksum, files):
            failed = line.startswith("FAILED")
            print(line, file=sys.stderr if failed else sys.stdout)
            all_read = all_read and not failed
    return 0 if all_read else 1


if __name__ == "__main__":
    sys.exit(main())
