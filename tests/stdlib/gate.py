"""Run CPython's own multiprocessing tests under dragon; none that passed before may fail.

    gate.py --dragon build/dragon               run the four suites under start method "dragon"
    gate.py --dragon build/dragon --update      ... and add what newly passes to passing.txt
    gate.py --dragon build/dragon --stock fork  stock methods must pass what they pass in python3

What the suites test must be dragon's own (OWN), not the standard library's in dragon processes.
passing.txt holds the tests that must pass, one `suite Class.test` a line. It may only grow. The
closing line counts these tests; those not yet expected to pass are in the score only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline"
PASSING = HERE / "passing.txt"
SUITES = ("mp", "main_handling", "futures", "primitives")
TEST_TIMEOUT_S = 100  # the slowest takes 6 s under spawn on an idle machine
SUITE_TIMEOUT_S = 900

#: What of multiprocessing is made by dragon's own classes, through the context and the module.
OWN = (
    *("Process", "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"),
    *("Queue", "JoinableQueue", "SimpleQueue", "Pipe", "Value", "Array", "Pool"),
)

Outcomes = dict[str, str]  # "Class.test" -> "passed", "skipped", "failed", "timeout", ...


def read_names(path: Path) -> set[str]:
    """Read a list of names, one a line, '#' starts a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def record_of(results: Path, method: str, suite: str) -> Path:
    """The file with the record of a suite's run."""
    return results / f"stdlib-{method}-{suite}.json"


def run_suite(dragon: Path, method: str, suite: str, results: Path) -> Outcomes:
    """Run one suite.

    Args:
        dragon (Path): The executable under test.
        method (str): The start method under test.
        suite (str): One of SUITES.
        results (Path): Folder for the suite's record and the output of its workers.

    Returns:
        Outcomes: Empty if the suite could not be run at all.
    """
    record = record_of(results, method, suite)
    record.unlink(missing_ok=True)
    command = [sys.executable, "-I", str(HERE / "run_mp_suite.py"), "--python", str(dragon)]
    command += ["--method", method, "--suite", suite, "--test-timeout", str(TEST_TIMEOUT_S)]
    command += ["--class-timeout", "300", "--json", str(record)]
    command += ["--log", str(record.with_suffix(".log"))]
    if suite == "primitives":
        command += ["--from-list", str(BASELINE / "primitives_pass.txt")]
    with record.with_suffix(".table").open("w", encoding="utf-8") as table:
        subprocess.run(command, stdout=table, stderr=table, timeout=SUITE_TIMEOUT_S, check=False)
    if not record.exists():
        print(record.with_suffix(".table").read_text(encoding="utf-8")[-1500:])
        return {}
    document = json.loads(record.read_text(encoding="utf-8"))
    report_leaks(suite, document["classes"])
    return {name: test["outcome"] for name, test in document["tests"].items()}


def report_leaks(suite: str, classes: dict[str, dict[str, list[str]]]) -> None:
    """Print the classes that left processes or shared memory behind."""
    for name, record in classes.items():
        for what, left in (("process", record["leaked"]), ("/dev/shm entry", record["shm"])):
            for one in left:
                print(f"  left by {suite} {name}: {what} {one[:100]}")


def foreign(provenance: dict[str, dict[str, str]]) -> list[str]:
    """What should be dragon's and is not.

    Args:
        provenance: for each name the class that was made through the context, and the module.
    """
    found = []
    for name in OWN:
        for maker, cls in provenance[name].items():
            # multiprocessing.Process is always the stock class, and defers to the context's.
            if not cls.startswith("dragon") and (maker, name) != ("module", "Process"):
                found.append(f"{maker}.{name} is {cls}")
    return found


def passes(outcomes: Outcomes) -> set[str]:
    """The names of those that passed."""
    return {name for name, outcome in outcomes.items() if outcome == "passed"}


def baseline_passes(method: str, suite: str = "mp") -> set[str]:
    """The tests of a suite that pass in python3 with a stock start method."""
    document = json.loads((BASELINE / f"{suite}_{method}.json").read_text(encoding="utf-8"))
    return passes({name: test["outcome"] for name, test in document["tests"].items()})


def score_line(suite: str, outcomes: Outcomes) -> str:
    """How much of the suite passes. For mp: apart from what passes without doing anything."""
    passed = passes(outcomes)
    if suite != "mp":
        of = len(outcomes) - list(outcomes.values()).count("skipped")
        return f"{suite}: {len(passed)} of {of}"
    real = read_names(BASELINE / "engaging_tests.txt")
    everything = baseline_passes("spawn")
    return (
        f"{suite}: {len(passed & real)} of {len(real)} real tests, "
        f"{len(passed & everything)} of {len(everything)} in all"
    )


def run_dragon(dragon: Path, results: Path, suites: list[str]) -> dict[str, str]:
    """Run the suites under start method "dragon", print their scores.

    Returns:
        dict[str, str]: "suite Class.test" -> outcome.
    """
    outcomes: dict[str, str] = {}
    for suite in suites:
        of_suite = run_suite(dragon, "dragon", suite, results)
        print(score_line(suite, of_suite) if of_suite else f"{suite}: could not be run", flush=True)
        outcomes.update({f"{suite} {name}": outcome for name, outcome in of_suite.items()})
    return outcomes


def add_to_passing(names: set[str]) -> None:
    """Add names to passing.txt, which stays sorted; nothing is ever taken away."""
    head = [line for line in PASSING.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    everything = sorted(read_names(PASSING) | names)
    PASSING.write_text("\n".join(head + everything) + "\n", encoding="utf-8")


def judge(expected: set[str], outcomes: dict[str, str]) -> int:
    """Print what was lost, and the closing line.

    Returns:
        int: The exit status, 0 if every expected test passed and there was one.
    """
    lost = sorted(name for name in expected if outcomes.get(name) != "passed")
    for name in lost:
        print(f"LOST {name}: {outcomes.get(name, 'was not run')}")
    if not outcomes:
        lost.append("the run itself")
    skipped = list(outcomes.values()).count("skipped")
    print(f"{max(len(expected) - len(lost), 0)} passed, {len(lost)} failed, {skipped} skipped")
    return 1 if lost else 0


def gate_dragon(dragon: Path, results: Path, suites: list[str], update: bool) -> int:
    """Compare a run under start method "dragon" with passing.txt; see `judge`."""
    outcomes = run_dragon(dragon, results, suites)
    expected = {name for name in read_names(PASSING) if name.split()[0] in suites}
    gained = passes(outcomes) - expected
    if gained and update:
        add_to_passing(gained)
        print(f"{len(gained)} tests added to passing.txt")
        expected |= gained
    elif gained:
        print(f"{len(gained)} tests pass that passing.txt does not name (gate.py --update adds):")
        print("\n".join(f"  {name}" for name in sorted(gained)[:10]))
    not_own = []
    record = record_of(results, "dragon", "mp")
    if "mp" in suites and record.exists():
        document = json.loads(record.read_text(encoding="utf-8"))
        not_own = foreign(document["meta"]["info"]["provenance"])
    for one in not_own:
        print(f"NOT OWN {one}")
    return judge(expected, outcomes) or int(bool(not_own))


def gate_stock(dragon: Path, results: Path, method: str) -> int:
    """Compare the mp suite under a stock start method with python3's run of it; see `judge`."""
    outcomes = run_suite(dragon, method, "mp", results)
    return judge(baseline_passes(method), outcomes)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", type=Path, required=True, help="the executable under test")
    parser.add_argument("--results", type=Path, default=Path("test-results"))
    parser.add_argument("--update", action="store_true", help="add what newly passes")
    parser.add_argument("--stock", choices=("spawn", "fork", "forkserver"))
    parser.add_argument("--suite", action="append", choices=SUITES, help="default: all four")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    dragon = options.dragon.resolve()
    if options.stock:
        return gate_stock(dragon, options.results, options.stock)
    return gate_dragon(dragon, options.results, options.suite or list(SUITES), options.update)


if __name__ == "__main__":
    sys.exit(main())
