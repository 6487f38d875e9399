"""`./dev bench start` still runs; its numbers are not looked at, only that they can be."""

from __future__ import annotations

import json
from pathlib import Path

from launcher_support import PYTHON, Outcome, run_program

SCRIPT = Path(__file__).parents[2] / "bench" / "bench_start.py"
SMALL = ("--rounds=2", "--big-rounds=1", "--pairs=1", "--burst=3", "--pool=2", "--idle=2")
METHODS = {"spawn", "forkserver", "fork", "dragon"}


def bench(exe: Path, *options: str, env: dict[str, str] | None = None) -> Outcome:
    words = ["--dragon", str(exe), *SMALL, "--main", "trivial", *options]
    return run_program(PYTHON, "-I", SCRIPT, *words, env=env)


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_every_row_of_the_table_is_there_and_as_wide_as_its_head(exe: Path) -> None:
    outcome = bench(exe)
    assert (outcome.stderr, outcome.status) == ("", 0)
    head, rule, *rows = table(outcome.stdout)
    assert set(head) >= METHODS
    assert rule[0] == "---"
    *processes, pass_head, _, pass_row = rows
    assert len(processes) == 9
    assert {len(row) for row in processes} == {len(head)}
    assert len(pass_head) == len(pass_row)
    assert "before" in outcome.stdout.splitlines()[-1]


def test_the_record_has_a_number_of_each_method_for_each_round(exe: Path, tmp_path: Path) -> None:
    outcome = bench(exe, "--json", str(tmp_path / "record.json"))
    assert (outcome.stderr, outcome.status) == ("", 0)
    record = json.loads((tmp_path / "record.json").read_text())
    samples = {row["row"]: row["samples"] for row in record["rows"]}
    assert all(set(of_row) == METHODS for of_row in samples.values())
    assert {len(numbers) for numbers in samples["first_line"].values()} == {2}
    assert {len(numbers) for numbers in samples["burst"].values()} == {1}
    for method in METHODS:  # the numbers are at their places
        for first_line, join in zip(
            samples["first_line"][method], samples["join"][method], strict=True
        ):
            assert 0 < first_line < join
        assert 0 < samples["pool_map"][method][0] <= samples["pool_up"][method][0]
        assert 0.1 < samples["idle"][method][0] < 100


def test_one_row_can_be_chosen_and_pinned_to_a_core(exe: Path) -> None:
    outcome = bench(exe, "--only", "first_line", "--pin", "0")
    assert (outcome.stderr, outcome.status) == ("", 0)
    assert [row[1] for row in table(outcome.stdout)] == ["main", "---", "trivial"]
    assert "cores [0]" in outcome.stdout


def test_an_unknown_row_is_refused_with_the_names_there_are(exe: Path) -> None:
    outcome = bench(exe, "--only", "no_such")
    assert outcome.status == 2
    assert "no_such" in outcome.stderr
    assert "first_line" in outcome.stderr


def test_a_library_that_cannot_be_imported_is_skipped_with_the_reason(
    exe: Path, tmp_path: Path
) -> None:
    (tmp_path / "pandas.py").write_text("raise ImportError('broken here')\n")
    options = ("--main", "pandas", "--only", "start")
    outcome = bench(exe, *options, env={"PYTHONPATH": str(tmp_path)})
    assert (outcome.stderr, outcome.status) == ("", 0)
    assert "main importing pandas skipped: ImportError: broken here" in outcome.stdout
    assert [row[1] for row in table(outcome.stdout)] == ["main", "---", "trivial"]
