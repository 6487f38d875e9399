"""What docs/faults.md says of ends that no other file here is about: pipes and join, each end."""

import re
import time
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from death_children import end
from overlay_support import until

ENDS = {"9": -9, "11": -11, "_exit 3": 3, "raise": 1, "exit": 0, "exit 3": 3}
FOLDER = Path(__file__).parents[2]


def send_and_end(connection: Any, how: str) -> None:
    connection.send("last words")
    end(how)


def started(dragon: BaseContext, connection: Any, target: Any, *args: Any) -> Any:
    process = dragon.Process(target=target, args=(connection, *args))
    process.start()
    connection.close()
    return process


@pytest.mark.parametrize("how", ENDS)
def test_a_reader_gets_what_was_sent_and_then_the_end(dragon: BaseContext, how: str) -> None:
    reader, writer = dragon.Pipe(duplex=False)
    started(dragon, writer, send_and_end, how)
    assert reader.recv() == "last words"
    with pytest.raises(EOFError):
        reader.recv()


@pytest.mark.parametrize("how", ENDS)
def test_a_writer_is_told_that_nobody_reads(dragon: BaseContext, how: str) -> None:
    reader, writer = dragon.Pipe(duplex=False)
    started(dragon, reader, end_of_reader, how).join()
    time.sleep(0.001)  # what is sent within 100 us of a death may go nowhere
    with pytest.raises(BrokenPipeError):
        writer.send(1)


def end_of_reader(connection: Any, how: str) -> None:
    end(how)


@pytest.mark.parametrize("how", ENDS)
def test_join_returns_and_the_exit_code_says_how_it_ended(dragon: BaseContext, how: str) -> None:
    process = dragon.Process(target=end, args=(how,))
    process.start()
    process.join(20)
    assert process.exitcode == ENDS[how]


@pytest.mark.parametrize("how", ENDS)
def test_what_a_producer_has_put_arrives_however_it_ends(dragon: BaseContext, how: str) -> None:
    q = dragon.Queue()
    process = dragon.Process(target=put_and_end, args=(q, how))
    process.start()
    process.join()
    assert [q.get(timeout=20) for _ in range(3)] == [0, 1, b"x" * 1_000_000]
    assert until(q.empty)


def put_and_end(q: Any, how: str) -> None:
    for item in (0, 1, b"x" * 1_000_000):
        q.put(item)
    end(how)


def test_each_test_that_the_page_names_is_there() -> None:
    text = (FOLDER / "docs" / "faults.md").read_text()
    named = set(re.findall(r"`((?:test|killed)_\w+)(?:\.c|\.py)?: (\w+)`", text))
    assert len(named) > 40
    for file, test in named:
        paths = list((FOLDER / "tests").glob(f"*/{file}.*")) or list(
            (FOLDER / "tests").glob(f"*/test_{file}.*")
        )
        assert any(re.search(rf"\b{test}\b", path.read_text()) for path in paths), (file, test)
