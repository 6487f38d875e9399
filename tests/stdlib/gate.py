"""Run CPython's own multiprocessing tests under dragon; none that passed before may fail.

    gate.py --dragon build/dragon               run all suites under start method "dragon"
    gate.py --dragon build/dragon --update      ... and add what newly passes to passing.txt
    gate.py --dragon build/dragon --stock fork  stock methods must pass what they pass in python3
    gate.py ... --repeat 3 --jobs 4             each class three times, four classes at once
    gate.py ... --without-cloudpickle           as on a machine that does not have it

What the suites test must be dragon's own (OWN), not the standard library's in dragon processes.
passing.txt holds the tests that must pass, one `suite Class.test` a line. It may only grow. The
closing line counts these tests; those not yet expected to pass are in the score only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline"
PASSING = HERE / "passing.txt"
SUITES = ("mp", "main_handling", "futures", "primitives", "others")
TEST_TIMEOUT_S = 100  # the slowest takes 6 s under spawn on an idle machine
SUITE_TIMEOUT_S = 900

#: What of multiprocessing is made by dragon's own classes, through the context and the module.
OWN = (
    *("Process", "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"),
    *("Queue", "JoinableQueue", "SimpleQueue", "Pipe", "Value", "Array", "Pool"),
)

#: Tests of other modules that start processes: module, and which of its tests.
OTHERS = (
    (
        "test.test_logging",
        r"QueueListenerTest.*(mp_queue|no_messages)|LogRecordTest.test_multiprocessing",
    ),
    ("test.test_fcntl", "test_lockf"),
    ("test.test_re", "gh94675"),
    ("test.test_compileall", "multiple_workers"),
    ("test.test_asyncio.test_events", "new_process"),
)

Outcomes = dict[str, str]  # "Class.test" -> "passed", "skipped", "failed", "timeout", ...


class Run(NamedTuple):
    """How the suites are run."""

    dragon: Path  # the executable under test
    method: str  # the start method under test
    results: Path  # folder for records, and the output of the runner's workers
    repeat: int
    jobs: int


def read_names(path: Path) -> set[str]:
    """Read a list of names, one a line, '#' starts a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def record_of(run: Run, suite: str) -> Path:
    """The file with the record of a suite's run."""
    return run.results / f"stdlib-{run.method}-{suite}.json"


def run_suite(run: Run, suite: str) -> Outcomes:
    """Run one of SUITES.

    Returns:
        Outcomes: Empty if the suite could not be run at all.
    """
    if suite == "primitives":
        chosen = ["--from-list", str(BASELINE / "primitives_pass.txt")]
        return run_tests(run, suite, ["--suite", suite, *chosen])
    if suite != "others":
        return run_tests(run, suite, ["--suite", suite])
    outcomes: Outcomes = {}
    for module, tests in OTHERS:
        arguments = ["--suite", f"module:{module}", "--only", tests]
        outcomes |= run_tests(run, module.rpartition(".")[2], arguments)
    return outcomes


def run_tests(run: Run, name: str, which: list[str]) -> Outcomes:
    """Have the runner run tests.

    Args:
        run: how.
        name: of their record.
        which: the runner's arguments that choose them.

    Returns:
        Outcomes: Empty if they could not be run at all.
    """
    record = record_of(run, name)
    record.unlink(missing_ok=True)
    command = [sys.executable, "-I", str(HERE / "run_mp_suite.py"), "--python", str(run.dragon)]
    command += ["--method", run.method, *which, "--test-timeout", str(TEST_TIMEOUT_S)]
    command += ["--class-timeout", "300", "--json", str(record)]
    command += ["--log", str(record.with_suffix(".log"))]
    command += ["--repeat", str(run.repeat), "--jobs", str(run.jobs)]
    timeout = SUITE_TIMEOUT_S * run.repeat
    with record.with_suffix(".table").open("w", encoding="utf-8") as table:
        subprocess.run(command, stdout=table, stderr=table, timeout=timeout, check=False)
    if not record.exists():
        print(record.with_suffix(".table").read_text(encoding="utf-8")[-1500:])
        return {}
    document = json.loads(record.read_text(encoding="utf-8"))
    report_leaks(name, document["classes"])
    return {test: of_test["outcome"] for test, of_test in document["tests"].items()}


@contextlib.contextmanager
def cloudpickle_hidden() -> Iterator[None]:
    """Have processes that are started meanwhile not find cloudpickle."""
    with tempfile.TemporaryDirectory() as folder:
        text = 'raise ModuleNotFoundError("it is hidden for a test", name="cloudpickle")\n'
        Path(folder, "cloudpickle.py").write_text(text, encoding="utf-8")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


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


def run_dragon(run: Run, suites: list[str]) -> dict[str, str]:
    """Run the suites under start method "dragon", print their scores.

    Returns:
        dict[str, str]: "suite Class.test" -> outcome.
    """
    outcomes: dict[str, str] = {}
    for suite in suites:
        of_suite = run_suite(run, suite)
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


def gate_dragon(run: Run, suites: list[str], update: bool) -> int:
    """Compare a run under start method "dragon" with passing.txt; see `judge`."""
    outcomes = run_dragon(run, suites)
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
    record = record_of(run, "mp")
    if "mp" in suites and record.exists():
        document = json.loads(record.read_text(encoding="utf-8"))
        not_own = foreign(document["meta"]["info"]["provenance"])
    for one in not_own:
        print(f"NOT OWN {one}")
    return judge(expected, outcomes) or int(bool(not_own))


def gate_stock(run: Run) -> int:
    """Compare the mp suite under a stock start method with python3's run of it; see `judge`."""
    return judge(baseline_passes(run.method), run_suite(run, "mp"))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", type=Path, required=True, help="the executable under test")
    parser.add_argument("--results", type=Path, default=Path("test-results"))
    parser.add_argument("--update", action="store_true", help="add what newly passes")
    parser.add_argument("--stock", choices=("spawn", "fork", "forkserver"))
    parser.add_argument("--suite", action="append", choices=SUITES, help="default: all")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each class")
    parser.add_argument("--jobs", type=int, default=1, help="classes that run at once")
    parser.add_argument("--without-cloudpickle", action="store_true", help="hide cloudpickle")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    method = options.stock or "dragon"
    how = options.results, options.repeat, options.jobs
    run = Run(options.dragon.resolve(), method, *how)
    with cloudpickle_hidden() if options.without_cloudpickle else contextlib.nullcontext():
        if options.stock:
            return gate_stock(run)
        return gate_dragon(run, options.suite or list(SUITES), options.update)


if __name__ == "__main__":
    sys.exit(main())
