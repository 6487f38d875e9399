"""Count the tests of one run: `tally.py meson TESTLOG.json` or `tally.py junit REPORT.xml`.

Prints three numbers, passed, failed and skipped, on one line. ./dev adds them up.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TAP_LINE = re.compile(r"^(?P<not>not )?ok\b[^#]*(?P<skip># ?skip)?", re.IGNORECASE)


class Tally(NamedTuple):
    """Numbers of tests by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Tally) -> Tally:
        """The sum of both."""
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def tally_tap(output: str) -> Tally:
    """Count the result lines of one TAP report."""
    passed = failed = skipped = 0
    for line in output.splitlines():
        match = TAP_LINE.match(line)
        if not match:
            continue
        if match["skip"]:
            skipped += 1
        elif match["not"]:
            failed += 1
        else:
            passed += 1
    return Tally(passed, failed, skipped)


def tally_program(record: dict[str, str]) -> Tally:
    """Count one test program of meson's log, which may hold many tests or be just one.

    A program that died or ran out of time has printed no line for the test that did it: that is
    one failure more.
    """
    tally = tally_tap(record.get("stdout") or "")
    result = record["result"]
    if result in ("OK", "EXPECTEDFAIL"):
        return tally if sum(tally) else Tally(passed=1)
    if result == "SKIP":
        return tally if sum(tally) else Tally(skipped=1)
    return tally if tally.failed else tally.plus(Tally(failed=1))


def meson_records(log: Path) -> Iterator[dict[str, str]]:
    """The entries of meson's testlog.json: one JSON object a line."""
    for line in log.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def tally_meson(log: Path) -> Tally:
    """Count all test programs of a `meson test` run."""
    total = Tally()
    for record in meson_records(log):
        total = total.plus(tally_program(record))
    return total


def tally_junit(report: Path) -> Tally:
    """Count a pytest run by its JUnit report."""
    total = Tally()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped = int(suite.get("skipped", "0"))
        tests = int(suite.get("tests", "0"))
        total = total.plus(Tally(max(tests - failed - skipped, 0), failed, skipped))
    return total


def main() -> int:
    """Run the command line."""
    counters = {"meson": tally_meson, "junit": tally_junit}
    if len(sys.argv) != 3 or sys.argv[1] not in counters:
        print(__doc__, file=sys.stderr)
        return 2
    report = Path(sys.argv[2])
    print(*(counters[sys.argv[1]](report) if report.exists() else Tally()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
