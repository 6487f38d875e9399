"""`./dev bench mp` still runs; its numbers are not looked at, only that they can be."""

from __future__ import annotations

import json
from pathlib import Path

from launcher_support import PYTHON, Outcome, run_program

SCRIPT = Path(__file__).parents[2] / "bench" / "bench_mp.py"
SMALL = ("--rounds=1", "--target=0.001", "--tasks=1000")
METHODS = {"spawn", "forkserver", "fork", "dragon"}


def bench(exe: Path, *options: str) -> Outcome:
    return run_program(PYTHON, "-I", SCRIPT, "--dragon", str(exe), *SMALL, *options)


def test_the_record_has_a_number_of_each_method(exe: Path, tmp_path: Path) -> None:
    outcome = bench(exe, "--only", "pipe.raw", "--only", "sync", "--into", str(tmp_path))
    assert outcome.status == 0, outcome
    assert "`pipe.raw.simplex.64B`" in (tmp_path / "mp.md").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "mp.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["name"], row["is_pinned"]) for row in rows] == [
        (name, is_pinned)
        for is_pinned in (False, True)
        for name in ("pipe.raw.simplex.64B", "semaphore.uncontended", "event.set_isset_clear")
    ]
    assert all(set(row["medians"]) == METHODS for row in rows)
    assert all(value > 0 for row in rows for value in row["medians"].values())
    assert all(row["lowest"] <= row["ratio"] <= row["highest"] for row in rows)


def test_pools_are_measured_once_and_not_pinned(exe: Path) -> None:
    outcome = bench(exe, "--only", "pool.calls")
    assert outcome.status == 0, outcome
    assert "Not pinned:" in outcome.stdout
    assert "\nPinned:" not in outcome.stdout
    assert "`pool.apply.lat`" in outcome.stdout


def test_a_method_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "dragon"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    outcome = bench(broken, "--only", "sync", "--pin", "no")
    assert outcome.status == 1
    assert outcome.stdout.split("\n\n")[-2] == "failed: sync under dragon: it is broken"


def test_operations_are_held_against_the_machine(exe: Path) -> None:
    core = exe.parent / "bench" / "bench_core"
    outcome = bench(exe, "--only", "limits", "--core", str(core), "--pin", "no")
    assert outcome.status == 0, outcome
    assert "put + get of an int in one process" in outcome.stdout
    assert "8 B one way through a channel" in outcome.stdout


def test_the_short_table_of_the_readme_replaces_what_was_there(tmp_path: Path) -> None:
    target, table = tmp_path / "page.md", tmp_path / "table.md"
    target.write_text("before\n<!-- mp -->\nold\n<!-- /mp -->\nafter\n", encoding="utf-8")
    table.write_text("| new |\n", encoding="utf-8")
    words = (PYTHON, "-I", SCRIPT.parent / "publish.py", f"{target}:mp={table}")
    assert run_program(*words).status == 0
    assert target.read_text(encoding="utf-8") == (
        "before\n<!-- mp -->\n| new |\n<!-- /mp -->\nafter\n"
    )
    assert run_program(*words[:-1], f"{target}:other={table}").status != 0


def test_a_group_that_does_not_exist_is_refused_with_those_that_do(exe: Path) -> None:
    outcome = bench(exe, "--only", "nosuch")
    assert outcome.status != 0
    assert "pipe.lat, pipe.raw" in outcome.stderr
