"""Pools that cannot grow: an error that says limit, asked and free, and never a signal."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from control_group import group_of, in_group, n_killed_in

IS_DRAGON = "_dragon_launch" in sys.builtin_module_names
MIB = 1 << 20

FILL = """
import os, resource
from dragon.managed_memory import *

def fill(pool, size):
    blocks = []
    try:
        while True:
            blocks.append(pool.alloc(size))
            blocks[-1].get_memview()[:] = b"x" * size
    except DragonPoolAllocationNotAvailable as error:
        print(error)
    assert blocks, "nothing could be allocated"
    for block in blocks:
        assert block.get_memview()[-1] == 120
        block.free()
    block = pool.alloc(size)  # what was freed serves again
    block.get_memview()[:] = b"y" * size
    block.free()
    print("used", len(blocks) * size, flush=True)
"""


def run(code: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the Python that runs the tests; before: a command that starts it."""
    return subprocess.run(
        [*before, sys.executable, "-c", FILL + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def in_small_dev_shm(code: str) -> subprocess.CompletedProcess[str]:
    """The same where /dev/shm holds 1 MiB."""
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    return run(code, "unshare", "-m", "sh", "-c", mount, "sh")


needs_mounts = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm"],
        capture_output=True,
        check=False,
    ).returncode
    != 0,
    reason="this user may not mount",
)


@needs_mounts
@pytest.mark.parametrize("size", [100, 5000, 40_000])
def test_a_pool_that_dev_shm_has_no_room_for_says_so(size: int) -> None:
    done = in_small_dev_shm(f"""
    with MemoryPool({64 * MIB}, "limits", 1) as pool:
        fill(pool, {size})
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"asked for {size} bytes; the pool's limit is {64 * MIB}, free are" in done.stdout
    assert "No space left on device" in done.stdout
    assert 400_000 < int(done.stdout.split()[-1]) < MIB


@needs_mounts
def test_a_block_larger_than_dev_shm_is_refused_and_takes_nothing() -> None:
    done = in_small_dev_shm(f"""
    with MemoryPool({64 * MIB}, "limits", 1) as pool:
        try:
            pool.alloc({32 * MIB})
        except DragonPoolAllocationNotAvailable as error:
            print("refused", pool.current_allocations)
        fill(pool, 40_000)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("refused 0\n")


@needs_mounts
@pytest.mark.skipif(not IS_DRAGON, reason="only a dragon runtime has a default pool")
def test_the_default_pool_needs_no_dev_shm() -> None:
    done = in_small_dev_shm("""
    pool = MemoryPool.attach_default()
    block = pool.alloc(64 << 20)
    block.get_memview()[-1] = 1
    block.free()
    print("done")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_FSIZE"])
def test_a_pool_above_a_limit_of_the_process_cannot_be_made(limit: str) -> None:
    done = run(f"""
    limit = {512 * MIB}
    if "{limit}" == "RLIMIT_AS":
        limit += int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.{limit}, (limit, limit))
    try:
        MemoryPool({1024 * MIB}, "limits{os.getpid()}", 1)
    except DragonPoolCreateFail as error:
        print(error)
    with MemoryPool({MIB}, "limits{os.getpid()}", 1) as pool:
        fill(pool, 5000)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cannot create pool 'limits{os.getpid()}'" in done.stdout


def test_a_pool_made_before_the_limit_on_file_sizes_is_usable_under_it() -> None:
    done = run(f"""
    with MemoryPool({4 * MIB}, "limits{os.getpid()}", 1) as pool:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({MIB}, {MIB}))
        fill(pool, 40_000)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[-1]) > 3 * MIB


@pytest.mark.skipif(not IS_DRAGON, reason="only a dragon runtime has a default pool")
def test_a_full_default_pool_says_so() -> None:
    code = """
    pool = MemoryPool.attach_default()
    assert pool.size <= 256 << 20, pool.size
    fill(pool, 1 << 20)
    """
    done = run(code, "prlimit", f"--fsize={256 * MIB}", "--")
    assert (done.returncode, done.stderr) == (0, "")
    assert "asked for 1048576 bytes" in done.stdout
    assert int(done.stdout.split()[-1]) > 128 * MIB


@pytest.mark.skipif(not IS_DRAGON, reason="only a dragon runtime has a default pool")
def test_the_default_pool_ends_below_the_limit_of_the_control_group() -> None:
    code = f"""
    pool = MemoryPool.attach_default()
    try:
        pool.alloc({300 * MIB})  # at once: the limit is known from the start
    except DragonPoolError as error:
        print(error)
    fill(pool, 1 << 20)
    """
    with group_of(256 * MIB) as group:
        done = run(code, *in_group(group))
        assert (done.returncode, done.stderr) == (0, "")
        assert n_killed_in(group) == 0
    limit = 256 * MIB // 8 * 7
    for asked in (300 * MIB, MIB):
        assert f"(asked for {asked} bytes; its limit is {limit}, free are " in done.stdout
    assert limit * 3 // 4 < int(done.stdout.split()[-1]) <= limit
