"""Quick calls go to workers many at a time; a long one among them holds no other up."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import square
from overlay_support import until
from pool_children import (
    DiesOnArrival,
    NeedsTwoError,
    count,
    meet_at_500,
    pass_gate_at_500,
    share,
    share_and_wait_at,
)

import _dragon
from dragon_overlay.errors import WorkerDied
from dragon_overlay.pool import dispatcher, protocol
from dragon_overlay.pool.executor import ProcessPoolExecutor


@pytest.fixture
def large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine."""
    monkeypatch.setattr(dispatcher, "_TASK_NS", 1 << 60)


@pytest.mark.usefixtures("large_batches")
def test_results_of_calls_before_a_long_one_come_while_it_lasts(dragon: Any) -> None:
    counts, entered, gate = dragon.RawArray("i", 1000), dragon.Semaphore(0), dragon.Semaphore(0)
    with dragon.Pool(1, share, (counts, (entered, gate))) as pool:
        results = pool.imap(pass_gate_at_500, range(1000))
        assert [results.next(20) for _ in range(500)] == list(range(500))
        gate.release()
        assert list(results) == list(range(500, 1000))
    assert list(counts) == [1] * 1000


@pytest.mark.usefixtures("large_batches")
def test_calls_behind_a_long_one_are_done_by_others(dragon: Any) -> None:
    counts, entered, gate = dragon.RawArray("i", 1000), dragon.Semaphore(0), dragon.Semaphore(0)
    with dragon.Pool(2, share, (counts, (entered, gate))) as pool:
        results = pool.imap_unordered(pass_gate_at_500, range(1000))
        others = {results.next(20) for _ in range(999)}
        assert others == set(range(1000)) - {500}
        gate.release()
        assert list(results) == [500]
    assert list(counts) == [1] * 1000


@pytest.mark.usefixtures("large_batches")
def test_calls_that_wait_for_each_other_meet(dragon: Any) -> None:
    counts, barrier = dragon.RawArray("i", 1000), dragon.Barrier(2)
    with dragon.Pool(2, share, (counts, barrier)) as pool:
        assert pool.map_async(meet_at_500, range(1000), 1).get(20) == list(range(1000))
    assert list(counts) == [1] * 1000


@pytest.mark.usefixtures("large_batches")
@pytest.mark.parametrize("step", ["none", "send", "sent", "clear", "stop"])
def test_withdrawn_calls_are_made_once_wherever_the_worker_dies_that_had_them(
    dragon: Any, tmp_path: Path, step: str
) -> None:
    counts, entered, gate = dragon.RawArray("i", 1000), dragon.Semaphore(0), dragon.Semaphore(0)
    initargs = (counts, (entered, gate), 300, step, str(tmp_path / "mark"))
    with dragon.Pool(1, share_and_wait_at, initargs) as pool:
        results = pool.map_async(count, range(1000), 1)
        # The worker keeps its results; they come when it is looked at, and the rest is withdrawn.
        assert until(lambda: results._number_left == 1000 - 299)
        gate.release()
        assert results.get(20) == list(range(1000))
    assert list(counts) == [1] * 1000
    assert (tmp_path / "mark").exists() == (step != "none")


@pytest.mark.usefixtures("large_batches")
def test_a_call_that_was_withdrawn_can_be_cancelled(dragon: Any) -> None:
    counts, entered, gate = dragon.RawArray("i", 1000), dragon.Semaphore(0), dragon.Semaphore(0)
    with ProcessPoolExecutor(1, None, share, (counts, (entered, gate))) as executor:
        results = executor.map(pass_gate_at_500, range(1000))
        assert [next(results) for _ in range(500)] == list(range(500))
        (place,) = executor._dispatcher.places
        assert until(lambda: sum(task.end - task.first for task in [*place.tasks.values()]) == 1)
        executor.shutdown(wait=False, cancel_futures=True)
        gate.release()
        assert next(results) == 500
    assert list(counts) == [1] * 501 + [0] * 499


@pytest.mark.usefixtures("large_batches")
def test_single_calls_that_go_together_fail_alone(dragon: Any) -> None:
    arguments: list[Any] = list(range(1000))
    arguments[300] = NeedsTwoError(1, 2)  # cannot be unpickled
    arguments[400] = DiesOnArrival()
    arguments[500] = threading.Lock()  # cannot be pickled
    arguments[600] = "text"  # cannot be squared
    with dragon.Pool(1) as pool:
        assert pool.apply(square, (2,)) == 4  # calls are known to be quick
        results = [pool.apply_async(square, (x,)) for x in arguments]
        outcomes: list[Any] = []
        for result in results:
            result.wait(20)
            outcomes.append(result._value if result.successful() else type(result._value))
    squares: list[Any] = [x * x for x in range(1000)]
    squares[300:601:100] = [TypeError, WorkerDied, TypeError, TypeError]
    assert outcomes == squares
    assert "DiesOnArrival" in str(results[400]._value)


@pytest.fixture
def words(dragon: Any) -> Any:
    return protocol.Words(2).of_place(1)


def test_a_worker_stops_at_a_call_that_was_withdrawn(words: Any) -> None:
    sent: list[Any] = []
    loop = _dragon.WorkerLoop(words, sent.append, 1, 7)
    loop.keep_ns = 1 << 60
    words.withdraw(5, 2, 6)
    loop.call_all(5, protocol.MAP, square, range(4))
    results, stopped = sent
    assert results[:6] == (1, 7, 5, 0, protocol.RESULTS, 2)
    assert _dragon.results_of(results[6], 0, 2) == [0, 1]
    assert stopped == (1, 7, 5, 2, protocol.STOPPED)
    assert words.doing() == 0


def test_what_was_kept_before_a_call_stays_as_long_as_that_call_is_named(words: Any) -> None:
    """The pool may be reading it."""
    sent: list[Any] = []
    noted: list[Any] = [0, 0, []]  # a call: its word, how many results were kept before, which

    class Loop(_dragon.WorkerLoop):
        def _send(self, *alone: Any) -> None:
            sent.append(alone[-1:])

    def text_of(i: int) -> str:
        noted[:] = words.doing(), i - len(sent), words.kept(0, i - len(sent))
        return chr(ord("a") + i % 26) * 1000

    def put(message: Any) -> None:
        sent.extend([(text,) for text in _dragon.results_of(message[6], 0, message[5])])

    def look(step: str) -> None:
        if words.doing() == noted[0]:
            assert words.kept(0, noted[1]) == noted[2], step

    loop = Loop(words, put, 1, 7)
    loop.keep_ns, loop.probe = 1 << 60, look
    loop.call_all(5, protocol.MAP, text_of, range(100))  # the journal is full several times
    assert [text[0] for (text,) in sent] == [chr(ord("a") + i % 26) for i in range(100)]


@pytest.mark.parametrize(
    ("first", "end", "number", "is_withdrawn"),
    [
        ((5, 2), 7, 5, False),  # item 0
        ((5, 0), 7, 5, True),
        ((4, 3), 7, 5, True),
        ((4, 3), 5, 5, False),
        ((6, 0), 7, 5, False),
        ((0xFFFFFFFF, 1), 0x1_0000_0003, 0x1_0000_0002, True),  # numbers go round
        ((0xFFFFFFFF, 1), 0x1_0000_0003, 0x1_0000_0003, False),
    ],
)
def test_calls_are_withdrawn_up_to_a_number(
    words: Any, first: tuple[int, int], end: int, number: int, is_withdrawn: bool
) -> None:
    sent: list[Any] = []
    loop = _dragon.WorkerLoop(words, sent.append, 1, 7)
    words.withdraw(*first, end)
    assert loop.begin(number, 0) is not is_withdrawn
    assert words.item_of(number) == (None if is_withdrawn else 0)
    assert len(sent) == is_withdrawn


VALUES = [0, -(1 << 61), 1 << 61, 1.5, True, False, None, "", "text \u20ac", b"", b"bytes\0"]


def test_small_results_come_as_they_are(dragon: Any) -> None:
    values = [*VALUES, "\ud800", 1 << 70, "x" * 1000, "x" * 100_000, b"x" * 2000]
    with dragon.Pool(1) as pool:
        for chunksize in (1, len(values)):
            results = pool.map(_itself, values * 40, chunksize)
            assert results == values * 40
            assert [type(x) for x in results] == [type(x) for x in values * 40]


def _itself(x: Any) -> Any:
    return x


def test_a_journal_that_makes_no_sense_is_an_error() -> None:
    for journal, n in [(b"", 1), (b"\x04abc", 1), (b"\xff", 1), (b"\x06\xff\xff\xff\xffabc", 1)]:
        with pytest.raises(ValueError, match="results"):
            _dragon.results_of(journal, 0, n)


def two_and_no_more() -> Iterator[int]:
    yield 1
    yield 2
    raise LookupError("no third")


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_iterable_that_raises_does_so_after_the_results_of_what_it_gave(
    dragon: Any, method: str
) -> None:
    results = []
    with dragon.Pool(2) as pool:
        answers = getattr(pool, method)(square, two_and_no_more())
        with pytest.raises(LookupError, match="no third"):
            while True:
                results.append(next(answers))
    assert sorted(results) == [1, 4]
