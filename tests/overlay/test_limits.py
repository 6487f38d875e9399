"""Where something is short, it works or an error says what: no signal, no hang, nothing left."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from overlay_support import TIMEOUT_S, environment, write_script

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from control_group import group_of, in_group, n_killed_in

MIB = 1 << 20

BEGIN = """
import multiprocessing, os, queue, resource, signal, sys
from multiprocessing import connection, shared_memory, util
from limit_tools import *
context = multiprocessing.get_context("dragon")
if __name__ == "__main__":
"""


def run(
    folder: Path, text: str, before: Sequence[str] = (), **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. before: a command that starts it; changes: of the environment."""
    script = write_script(folder, BEGIN + text)
    return subprocess.run(
        [*before, sys.executable, str(script)],
        cwd=folder,
        env=environment(PYTHONPATH=str(Path(__file__).parent), **changes),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def output(folder: Path, text: str, before: Sequence[str] = (), **changes: str) -> str:
    """What a program prints that ends well and has nothing to complain about."""
    done = run(folder, text, before, **changes)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# ---- a full pool --------------------------------------------------------------------------------

#: The pool ends an eighth below the limit on the size of files.
SMALL_POOL = ("prlimit", f"--fsize={64 * MIB}", "--")
FULL = "the pool is full (asked for {} bytes; its limit is 58720256, free are "


def test_a_put_into_a_full_pool_says_so_and_loses_nothing(tmp_path: Path) -> None:
    text = """
    q = context.Queue()
    items = []
    def put():
        item = bytes([len(items)]) * (4 * MIB)
        q.put(item)
        items.append(item)
    while (error := attempt(put)) is None:
        pass
    print(error)
    for put in (q.put_nowait, lambda item: q.put(item, timeout=600)):  # room may never come
        print(attempt(lambda: put(bytes(4 * MIB))))
    q.put("small")
    assert q.get() == items.pop(0)
    q.put(items[-1])
    items += ["small", items[-1]]
    print(take_all(q) == items)
"""
    *errors, are_same = output(tmp_path, text, SMALL_POOL).splitlines()
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("PoolFull: put: " + FULL.format(4 * MIB)), error
    assert are_same == "True"


def test_a_bounded_queue_is_full_before_its_pool(tmp_path: Path) -> None:
    text = """
    q = context.Queue(2)
    q.put(bytes(MIB))
    q.put(bytes(MIB))
    for put in (q.put_nowait, lambda item: q.put(item, timeout=0.01)):
        try:
            put(bytes(MIB))
        except queue.Full:
            print("Full")
"""
    assert output(tmp_path, text, SMALL_POOL) == "Full\nFull\n"


def test_a_result_that_does_not_fit_into_the_pool_is_an_error_of_its_call(tmp_path: Path) -> None:
    text = """
    from multiprocessing.pool import MaybeEncodingError
    with context.Pool(1) as pool:
        for _ in range(2):
            try:
                pool.apply(bytes, (100 * MIB,))
            except MaybeEncodingError as error:
                print(len(str(error)) < 3000, "PoolFull" in str(error))
        print(len(pool.apply(bytes, (4 * MIB,))))
"""
    assert output(tmp_path, text, SMALL_POOL) == f"True True\nTrue True\n{4 * MIB}\n"


def test_whatever_needs_room_says_what_it_asked_for(tmp_path: Path) -> None:
    text = """
    q = context.Queue()
    while attempt(lambda: q.put(bytes(4 * MIB))) is None:
        pass
    here, there = context.Pipe()
    whole = bytes(4 * MIB)
    for do in (
        lambda: context.Array("d", 1 << 19),
        lambda: context.Array("d", 1 << 19, lock=False),
        lambda: here.send(whole),
        lambda: here.send_bytes(whole),
        lambda: context.SimpleQueue().put(whole),
        lambda: context.JoinableQueue().put(whole),
    ):
        print(attempt(do))
    assert context.Value("i", 5).value == 5
    context.Lock(), context.Event(), context.Queue().put(1)
    here.send("small")
    print(there.recv(), exit_code(context), mapped(context))
"""
    *errors, last = output(tmp_path, text, SMALL_POOL).splitlines()
    assert len(errors) == 6
    for error in errors:
        assert "PoolFull: " in error
        assert FULL.format(4 * MIB) in error, error
    assert last == "small 0 [1, 2, 3]"


def test_what_is_larger_than_the_pool_says_so(tmp_path: Path) -> None:
    text = """
    print(attempt(lambda: context.Queue().put(bytes(100 * MIB))))
    with context.Pool(1) as pool:
        print(attempt(lambda: pool.apply(len, (bytes(100 * MIB),))))
        print(pool.apply(len, (b"abc",)))
"""
    *errors, length = output(tmp_path, text, SMALL_POOL).splitlines()
    for error in errors:
        assert error.startswith("PoolFull: put: so much does not fit into the pool (asked for ")
        assert "its limit is 58720256" in error
    assert length == "3"


def test_a_pool_that_a_child_has_filled_serves_again_when_it_is_emptied(tmp_path: Path) -> None:
    text = """
    q = context.Queue()
    print(exit_code(context, put_until_full, (q, MIB)))
    *items, error = take_all(q)
    print(len(items), {len(item) for item in items}, error)
    print(exit_code(context, put_bytes, (q, 50 * MIB)), len(q.get()))
"""
    first, second, third = output(tmp_path, text, SMALL_POOL).splitlines()
    assert (first, third) == ("0", f"0 {50 * MIB}")
    number, _, error = second.partition(f" {{{MIB}}} put: ")
    assert int(number) > 50
    assert error.startswith(FULL.format(MIB))


# ---- descriptors --------------------------------------------------------------------------------


def test_a_thousand_queues_and_locks_take_no_descriptors(tmp_path: Path) -> None:
    text = """
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    queues = [context.Queue() for _ in range(1000)]
    locks = [context.Lock() for _ in range(1000)]
    children = [
        context.Process(target=put_under_locks, args=(queues, locks, i)) for i in range(3)
    ]
    for child in children:
        child.start()
    print({tuple(sorted(q.get() for _ in children)) for q in queues})
    for child in children:
        child.join()
    print([child.exitcode for child in children], mapped(context), managed(context))
"""
    assert output(tmp_path, text) == "{(0, 1, 2)}\n[0, 0, 0] [1, 2, 3] {'a': 1}\n"


def test_what_takes_descriptors_raises_emfile_and_takes_none(tmp_path: Path) -> None:
    text = """
    mapped(context)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    gate, held = context.Event(), []
    n_before = len(os.listdir("/proc/self/fd"))
    def start():
        held.append(context.Process(target=gate.wait))
        held[-1].start()
    while (error := attempt(start)) is None:
        pass
    print(error)
    pipes = []
    while (error := attempt(lambda: pipes.append(context.Pipe()))) is None:
        pass
    print(error)
    pipes.clear()
    gate.set()
    for child in held[:-1]:
        child.join()
        child.close()
    del child
    held.clear()
    print(len(os.listdir("/proc/self/fd")) - n_before)
    print(mapped(context))
"""
    starting, pipe, n_left, last = output(tmp_path, text).splitlines()
    told = "OSError: [Errno 24] Too many open files"
    assert starting.startswith(told)
    assert pipe.startswith(told)
    assert int(n_left) <= 1  # a fork server may have been made anew
    assert last == "[1, 2, 3]"


# ---- address space ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [48, 64, 200, 512])
def test_a_program_with_little_address_space_has_a_smaller_pool(tmp_path: Path, size: int) -> None:
    text = f"""
    import _dragon
    pool_bytes = _dragon.pool_statistics()["size_bytes"]
    assert MIB < pool_bytes <= {size * MIB // 4}, pool_bytes
    q = context.Queue()
    item = bytes(MIB // 2)
    n = 0
    while (error := attempt(lambda: q.put(item))) is None:
        n += 1
    print(error)
    assert n > 2 and {{q.get() == item for _ in range(n)}} == {{True}}
    if {size} >= 200:  # a child with its stacks needs room, too, or says that it has none
        print(exit_code(context, put_bytes, (q, MIB)), len(q.get()))
"""
    error, *last = output(tmp_path, text, ("prlimit", f"--as={size * MIB}", "--")).splitlines()
    assert error.startswith(f"PoolFull: put: the pool is full (asked for {MIB // 2} bytes; its ")
    assert last == ([f"0 {MIB}"] if size >= 200 else [])


@pytest.mark.parametrize("spare", [0, 1, 8, 100])
def test_a_program_that_runs_out_of_address_space_gets_memory_errors(
    tmp_path: Path, spare: int
) -> None:
    text = f"""
    q = context.Queue()
    exit_code(context, put_bytes, (q, 10))
    here, there = context.Pipe()
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + {spare * MIB}, resource.RLIM_INFINITY))
    texts = [
        attempt(lambda: exit_code(context)),
        attempt(lambda: q.put(bytes(64 * MIB))),
        attempt(lambda: here.send([1])),
        attempt(lambda: context.Lock().acquire()),
    ]
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    assert all(
        text in (0, None, True) or text.startswith(("MemoryError", "OSError: [Errno 12]"))
        for text in texts
    ), texts
    print(len(q.get()), exit_code(context), mapped(context))
"""
    assert output(tmp_path, text) == "10 0 [1, 2, 3]\n"


# ---- /dev/shm and the temporary folder ----------------------------------------------------------


def mounted(size: str, folder: str) -> tuple[str, ...]:
    """The command before a command that is to find a small file system there."""
    mount = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$@"'
    return "unshare", "-m", "sh", "-c", mount, "sh"


needs_mounts = pytest.mark.skipif(
    subprocess.run(
        [*mounted("64k", "/dev/shm"), "true"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this user may not mount",
)


@needs_mounts
@pytest.mark.parametrize("size", ["64k", "1m", "64m"])
def test_all_but_named_memory_works_without_dev_shm(tmp_path: Path, size: str) -> None:
    text = """
    q = context.Queue()
    for _ in range(70):
        q.put(bytes(MIB))
    print({len(item) for item in take_all(q)}, len(context.Array("d", 10 * MIB)))
    locks = [context.Lock() for _ in range(1000)]
    print(mapped(context), managed(context), left())
"""
    done = output(tmp_path, text, mounted(size, "/dev/shm"))
    assert done == f"{{{MIB}}} {10 * MIB}\n[1, 2, 3] {{'a': 1}} []\n"


@needs_mounts
@pytest.mark.parametrize(("size", "room"), [("64k", 65536), ("1m", MIB), ("64m", 64 * MIB)])
def test_shared_memory_that_does_not_fit_is_refused_when_it_is_made(
    tmp_path: Path, size: str, room: int
) -> None:
    text = f"""
    def make(size):
        made.append(shared_memory.SharedMemory(create=True, size=size))
        made[-1].buf[:] = b"x" * made[-1].size
    made = []
    print(attempt(lambda: make({room} + 1)), left())
    half = {room} // 2
    while (error := attempt(lambda: make(half))) is None:
        pass
    print(len(made), error)
    for block in made:
        block.close(), block.unlink()
    blocks = [shared_memory.SharedMemory(create=True, size=half) for _ in range(2)]
    print(attempt(lambda: shared_memory.SharedMemory(create=True, size=4096)))
    for block in blocks:
        print(exit_code(context, fill_shared_memory, (block.name,)), block.buf[-1])
        block.close(), block.unlink()
    print(left())
"""
    done = output(tmp_path, text, mounted(size, "/dev/shm")).splitlines()
    assert done[0] == (
        f"OSError: [Errno 28] SharedMemory of {room + 1} bytes: No space left on device"
        f" (/dev/shm has {room} of {room}) []"
    )
    assert done[1].startswith("2 OSError: [Errno 28] SharedMemory of ")
    assert done[2].endswith(f": No space left on device (/dev/shm has 0 of {room})")
    assert done[3:] == ["0 121", "0 121", "[]"]


@needs_mounts
def test_a_named_pool_in_a_full_dev_shm_is_refused(tmp_path: Path) -> None:
    text = """
    from dragon.managed_memory import MemoryPool
    with open("/dev/shm/filler", "wb", 0) as filler:
        while attempt(lambda: filler.write(bytes(4096))) == 4096:
            pass
    try:
        MemoryPool(MIB, "limits", 1)
    except Exception as error:
        print(type(error).__name__, error)
    print(left())
"""
    error, names = output(tmp_path, text, mounted("1m", "/dev/shm")).splitlines()
    assert error.startswith("DragonPoolCreateFail")
    assert "No space left on device" in error
    assert names == "['filler']"


#: What is to do with the temporary folder, and what must not depend on it.
IN_TEMPORARY_FOLDER = """
    q = context.Queue()
    q.put(bytes(MIB))
    print(len(q.get()), len(context.Array("d", MIB)), mapped(context), exit_code(context))
    print(attempt(lambda: managed(context)), attempt(lambda: listened(context)))
    print(attempt(lambda: os.path.dirname(util.get_temp_dir())))
"""


@needs_mounts
def test_a_small_temporary_folder_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    before = mounted("64k", str(folder))
    done = output(tmp_path, IN_TEMPORARY_FOLDER, before, TMPDIR=str(folder)).splitlines()
    assert done == [f"{MIB} {MIB} [1, 2, 3] 0", "{'a': 1} hello", str(folder)]


@needs_mounts
def test_a_full_temporary_folder_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    text = (
        """
    with open(os.environ["TMPDIR"] + "/filler", "wb", 0) as filler:
        while attempt(lambda: filler.write(bytes(4096))) == 4096:
            pass
"""
        + IN_TEMPORARY_FOLDER
        + """
    print(os.listdir(os.environ["TMPDIR"]))
"""
    )
    done = output(tmp_path, text, mounted("64k", str(folder)), TMPDIR=str(folder)).splitlines()
    assert done[:2] == [f"{MIB} {MIB} [1, 2, 3] 0", "{'a': 1} hello"]
    assert done[2] in ("/tmp", "/var/tmp", "/usr/tmp")
    assert done[3] == "['filler']"


@needs_mounts
def test_a_temporary_folder_without_room_for_a_socket_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    before = mounted("64k,nr_inodes=2", str(folder))  # itself, and one more
    done = run(tmp_path, IN_TEMPORARY_FOLDER, before, TMPDIR=str(folder))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{MIB} {MIB} [1, 2, 3] 0",
        "EOFError:  OSError: [Errno 28] No space left on device",  # as in the standard library
        str(folder),
    ]


# ---- the size of files, processes, the memory of a control group ---------------------------------


@pytest.mark.parametrize("when", ["before the first use", "after it"])
@pytest.mark.parametrize("size", [0, 4096])
def test_a_limit_of_file_size_is_none_of_the_pools(tmp_path: Path, when: str, size: int) -> None:
    text = f"""
    if {when == "after it"}:
        exit_code(context)
    import _dragon
    _dragon.pool_statistics()  # it is open
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size},) * 2)
    q = context.Queue()
    for _ in range(100):
        q.put(bytes(MIB))
    print({{len(item) for item in take_all(q)}}, exit_code(context, put_bytes, (q, 10 * MIB)))
    print(len(q.get()), mapped(context), len(context.Array("i", 100_000)))
    name = f"limits{{os.getpid()}}"
    print(attempt(lambda: shared_memory.SharedMemory(name, create=True, size=MIB)))
    print(os.path.exists("/dev/shm/" + name))
"""
    # The standard library's resource tracker complains about the SharedMemory that was not made.
    done = run(tmp_path, text)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        f"{{{MIB}}} 0",
        f"{10 * MIB} [1, 2, 3] 100000",
        "OSError: [Errno 27] File too large",
        "False",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without processes")
def test_no_process_left_is_eagain_for_all_that_starts_some(tmp_path: Path) -> None:
    text = """
    os.setgroups([])
    os.setresgid(60124, 60124, 60124)
    os.setresuid(60124, 60124, 60124)
    os.chdir("/")
    exit_code(context)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    for do in (exit_code, mapped, managed):
        print(attempt(lambda: do(context)))
    q = context.Queue()
    q.put(1)
    print(q.get(), multiprocessing.active_children())
"""
    done = output(tmp_path, text).splitlines()
    assert done == ["BlockingIOError: [Errno 11] Resource temporarily unavailable"] * 3 + ["1 []"]


def test_the_pool_is_full_before_the_kernel_kills(tmp_path: Path) -> None:
    text = """
    q = context.Queue()
    print(exit_code(context, put_until_full, (q, 8 * MIB)))
    n = 0
    while not isinstance(item := q.get(), str):  # one by one: copies would count as well
        n += 1
    print(n, item)
    print(mapped(context), managed(context))
"""
    with group_of(768 * MIB) as group:
        first, second, last = output(tmp_path, text, in_group(group)).splitlines()
        assert n_killed_in(group) == 0
    number, _, error = second.partition(" ")
    assert first == "0"
    assert int(number) > 75
    assert f"its limit is {768 * MIB // 8 * 7}, free are" in error
    assert last == "[1, 2, 3] {'a': 1}"
