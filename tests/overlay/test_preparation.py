"""Children are prepared by the library's own functions, which other programs patch: coverage.py."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from overlay_support import TIMEOUT_S, Outcome, environment, write_script

Run = Callable[..., Outcome]

#: As coverage.py's: it travels with the data, and is unpickled before the process object.
STOWAWAY = """
import os
from multiprocessing import spawn

class Stowaway:
    def __getstate__(self):
        return 1
    def __setstate__(self, state):
        original = spawn.prepare
        def prepare(data):
            os.environ["PREPARED"] = data["name"] + " by the patched prepare"
            original(data)
        spawn.prepare = prepare
"""

PATCHED = """
import multiprocessing, os
from multiprocessing import spawn
from stowaway import Stowaway

original = spawn.get_preparation_data

def get_preparation_data(name):
    return original(name) | {"stowaway": Stowaway()}

def child(q):
    q.put(os.environ.get("PREPARED"))

def main():
    spawn.get_preparation_data = get_preparation_data
    context = multiprocessing.get_context("dragon")
    q = context.Queue()
    for name in ["first", "second"]:
        p = context.Process(target=child, args=(q,), name=name)
        p.start()
        print(q.get())
        p.join()
    with context.Pool(1) as pool:
        print(pool.apply(os.getenv, ("PREPARED",)).partition(" ")[2], flush=True)

if __name__ == "__main__":
"""

#: How children are made -> how main is called. A forked process has no seed of its own: its first
#: child is executed, and the second comes from a fork server that was.
WAYS = {
    "forked": "    main()\n",
    "executed": "    if os.fork():\n        os.wait()\n    else:\n        main()\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_patched_pair_of_functions_prepares_each_child(
    run: Run, tmp_path: Path, way: str
) -> None:
    (tmp_path / "stowaway.py").write_text(STOWAWAY)
    done = run(PATCHED + WAYS[way])
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "first by the patched prepare",
        "second by the patched prepare",
        "by the patched prepare",
    ]


COVERED = """
import concurrent.futures, multiprocessing
def in_process(q):
    q.put("process")  # line 4
class Worker(multiprocessing.get_context("dragon").Process):
    def run(self):
        self.line = 7
def in_pool(x):
    return x + 9
def in_executor(x):
    return x + 11
def nowhere():
    return 13
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    q = multiprocessing.Queue()
    for p in [multiprocessing.Process(target=in_process, args=(q,)), Worker()]:
        p.start()
        p.join()
        assert p.exitcode == 0
    with multiprocessing.Pool(1) as pool:
        pool.map(in_pool, [1, 2])
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        assert executor.submit(in_executor, 1).result() == 12
"""


@pytest.mark.skipif(
    importlib.util.find_spec("coverage") is None, reason="coverage.py is not installed"
)
def test_coverage_collects_what_children_ran(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("[run]\nconcurrency = multiprocessing\nparallel = true\n")
    script = write_script(tmp_path, COVERED)

    def coverage(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "coverage", words[0], "--rcfile=settings", *words[1:]],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    coverage("run", script.name)
    coverage("combine")
    coverage("json", "-o", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"][script.name]["missing_lines"] == [13]
