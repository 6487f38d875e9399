"""dragon.rc, dragon.dtypes and dragon.utils."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import _dragon
from dragon import dtypes, utils
from dragon._memory_names import PoolName
from dragon.channels import ChannelTimeout
from dragon.managed_memory import DragonPoolAttachFail, MemoryPool
from dragon.rc import DragonError


def test_error_numbers_are_those_of_the_c_library() -> None:
    assert (DragonError.SUCCESS, DragonError.TIMEOUT, DragonError.EMPTY) == (0, 9, 15)
    assert max(DragonError) is DragonError.BAD_RETURN_CODE
    assert dtypes.get_rc_string(DragonError.TIMEOUT) == "DRAGON_TIMEOUT"
    assert dtypes.get_rc_string(9999) == "DRAGON_BAD_RETURN_CODE (9999)"


def test_error_numbers_are_consecutive_and_named_as_programs_know_them() -> None:
    assert [error.value for error in DragonError] == list(range(117))
    known = {
        "FAILURE": 8,
        "CHANNEL_EMPTY": 28,
        "DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE": 59,
        "MEMORY_POOL_FULL": 73,
        "LOCK_PTHREAD_MUTEX_UNLOCK": 82,
        "PRIORITY_HEAP_EMPTY": 89,
        "PMSGQUEUE_UNSPECIFIED_ERROR": 90,
        "BCAST_IDLE_WAIT_CALL_ERROR": 102,
        "OBJECT_DESTROYED": 115,
    }
    assert {name: DragonError[name].value for name in known} == known


def test_an_exception_says_what_and_which() -> None:
    error = dtypes.DragonException("no room", DragonError.TIMEOUT)
    assert str(error) == "Dragon Message: no room | Return Code: DRAGON_TIMEOUT"
    assert str(dtypes.DragonException("no room")) == "no room"
    for one in [error, ChannelTimeout("late", 9), ChannelTimeout("late")]:
        copy = pickle.loads(pickle.dumps(one))
        assert (type(copy), str(copy), copy.lib_err) == (type(one), str(one), one.lib_err)


def test_an_exception_can_say_more() -> None:
    error = dtypes.DragonException("no room", 9, "a.c:1 < b.c:2", "MY_NAME")
    assert str(error) == "Dragon Message: no room | Return Code: MY_NAME\na.c:1 < b.c:2"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_last_error_says_where_it_came_from() -> None:
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(PoolName(1, utils.host_id(), "no such pool").pack())
    assert "os_linux.c:" in dtypes.getlasterrstr()
    assert utils.getlasterrstr() == dtypes.getlasterrstr()


def test_wait_modes_are_numbers() -> None:
    assert (dtypes.IDLE_WAIT.value, dtypes.SPIN_WAIT.value, dtypes.ADAPTIVE_WAIT) == (0, 1, 2)
    assert dtypes.DEFAULT_WAIT_MODE is dtypes.ADAPTIVE_WAIT


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256))])
def test_base64_text_leads_back(data: bytes) -> None:
    text = str(utils.B64(data))
    assert utils.B64.from_str(text).decode() == data
    assert utils.B64.str_to_bytes(utils.B64.bytes_to_str(data)) == data
    assert utils.b64decode(utils.b64encode(data)) == data
    assert utils.B64(data) == utils.B64.from_str(text)
    assert hash(utils.B64(data)) == hash(utils.B64.from_str(text))


@pytest.mark.parametrize("text", ["x", "abc", "ab$=", "ü"])
def test_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        utils.B64.str_to_bytes(text)


def test_hash_and_host_id_are_the_same_in_every_process() -> None:
    code = "from dragon.utils import *; print(host_id(), hash(b'abc'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == f"{utils.host_id()} {utils.hash(b'abc')}\n"
    assert 0 < utils.host_id() < 2**64
    assert utils.hash(b"abc") != utils.hash(b"abd")


@pytest.fixture
def own_host_id() -> Iterator[int]:
    before = utils.host_id()
    yield before
    utils.set_host_id(before)


def test_another_host_id_makes_pools_of_this_machine_remote(own_host_id: int) -> None:
    with MemoryPool(1 << 20, f"small{os.getpid()}", 1) as pool:
        utils.set_host_id(utils.host_id_from_k8s("a pod's uid"))
        assert utils.host_id() == utils.host_id_from_k8s("a pod's uid") != own_host_id
        assert not MemoryPool.attach(pool.serialize()).is_local
        utils.set_host_id(own_host_id)
        assert MemoryPool.attach(pool.serialize()).is_local
    for bad, kind in [("1", TypeError), (-1, OverflowError), (2**64, OverflowError)]:
        with pytest.raises(kind):
            utils.set_host_id(bad)


def test_a_process_without_a_runtime_has_runtime_number_0() -> None:
    assert (utils.get_local_rt_uid() != 0) == _dragon.has_node()


def test_huge_pages_are_where_the_mounts_say() -> None:
    found = utils.get_hugepage_mount()
    assert (found is None) == (" hugetlbfs " not in Path("/proc/self/mounts").read_text())


def test_a_thread_can_be_ended_by_another() -> None:
    begun, ended = threading.Event(), []

    def run() -> None:
        try:
            begun.set()
            while True:
                pass
        except SystemExit:
            ended.append("by exception")

    thread = utils.ExceptionalThread(target=run)
    with pytest.raises(RuntimeError, match="not running"):
        thread.kill_by_exception()
    thread.start()
    begun.wait()
    thread.kill_by_exception()
    thread.join()
    assert ended == ["by exception"]
    with pytest.raises(RuntimeError, match="not running"):
        thread.kill_by_exception()


@pytest.mark.parametrize(
    "use",
    [
        utils.TimeKeeper,
        utils.XPickler,
        utils.XNumPyVectorPickler,
        utils.XNumPy2DMatrixPickler,
        utils.XByteBufferPickler,
        utils.XScalarPickler,
        utils.XStringPickler,
        lambda: utils.set_local_kv("key", "value"),
        lambda: utils.get_local_kv("key", timeout=1),
    ],
)
def test_what_is_not_there_says_what_it_needs(use: Callable[[], object]) -> None:
    with pytest.raises(NotImplementedError, match="needs"):
        use()


def test_a_process_can_be_named() -> None:
    before = Path("/proc/self/comm").read_text().strip()
    try:
        utils.set_procname("a name that is too long")
        assert Path("/proc/self/comm").read_text() == "a name that is \n"
        with pytest.raises(ValueError):
            utils.set_procname("a\0b")
    finally:
        utils.set_procname(before)


def test_cpus() -> None:
    before = os.sched_getaffinity(0)
    assert utils.get_cpu_count() == len(before)
    try:
        utils.set_core_affinity(min(before))
        assert utils.get_cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_yes_and_no() -> None:
    assert [utils.strtobool(word) for word in ["y", "TRUE", "0", "off"]] == [1, 1, 0, 0]
    with pytest.raises(ValueError):
        utils.strtobool("maybe")
