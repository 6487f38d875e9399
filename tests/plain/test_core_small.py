"""dragon.rc, dragon.dtypes and dragon.utils."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from dragon import dtypes, utils
from dragon.channels import ChannelTimeout
from dragon.rc import DragonError


def test_error_numbers_are_those_of_the_c_library() -> None:
    assert (DragonError.SUCCESS, DragonError.TIMEOUT, DragonError.EMPTY) == (0, 9, 15)
    assert max(DragonError) is DragonError.BAD_RETURN_CODE
    assert dtypes.get_rc_string(DragonError.TIMEOUT) == "DRAGON_TIMEOUT"
    assert dtypes.get_rc_string(9999) == "DRAGON_BAD_RETURN_CODE (9999)"


def test_an_exception_says_what_and_which() -> None:
    error = dtypes.DragonException("no room", DragonError.TIMEOUT)
    assert str(error) == "Dragon Message: no room | Return Code: DRAGON_TIMEOUT"
    assert str(dtypes.DragonException("no room")) == "no room"
    for one in [error, ChannelTimeout("late", 9), ChannelTimeout("late")]:
        copy = pickle.loads(pickle.dumps(one))
        assert (type(copy), str(copy), copy.lib_err) == (type(one), str(one), one.lib_err)


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
