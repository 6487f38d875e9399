"""`dragon --portable` refuses what cannot work across machines; without it that works."""

from collections.abc import Callable

import pytest
from overlay_support import Outcome

Run = Callable[..., Outcome]

WAYS = [{"options": ["--portable"]}, {"env": {"DRAGON_PORTABLE": "1"}}]
NOT_PORTABLE = [{}, {"env": {"DRAGON_PORTABLE": "0"}}, {"env": {"DRAGON_PORTABLE": ""}}]

#: Passes descriptors in every way there is; each child and each call says how it went.
PROGRAM = """
import multiprocessing, multiprocessing.reduction as reduction, os, socket, sys

def tell(what, call, *args):
    try:
        result = call(*args)
    except NotImplementedError as error:
        assert "\\n" not in str(error)
        assert "--portable" in str(error) and "Queue or Pipe" in str(error), error
        result = "refused"
    print(what, result, flush=True)

def read(source):
    with socket.socket(fileno=source.detach()) if not hasattr(source, "recv") else source as s:
        assert s.recv(100) == b"text"

def start(target, *args):
    p = context.Process(target=target, args=args)
    p.start()
    p.join()
    return p.exitcode

class Carrier:
    # what programs do to pass a descriptor
    def __init__(self, sock):
        self.fd = sock.fileno()
    def __reduce__(self):
        return same, (reduction.DupFd(self.fd),)

def same(x):
    return x

def with_text():
    a, b = socket.socketpair()
    a.send(b"text")
    return b

def through_pipe(thing):
    a, b = context.Pipe()
    a.send(thing)
    read(b.recv())
    return "passed"

def by_handle():
    a, b = multiprocessing.Pipe()
    sock = with_text()
    reduction.send_handle(a, sock.fileno(), os.getpid())
    read(socket.socket(fileno=reduction.recv_handle(b)))
    return "passed"

def by_fds():
    a, b = socket.socketpair()
    sock = with_text()
    reduction.sendfds(a, [sock.fileno()])
    read(socket.socket(fileno=reduction.recvfds(b, 1)[0]))
    return "passed"

def in_child():
    tell("child", by_fds)

if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    sock = with_text()
    tell("argument", start, read, sock)
    sock = with_text()
    tell("DupFd", start, read, Carrier(sock))
    tell("message", through_pipe, with_text())
    tell("handle", by_handle)
    tell("fds", by_fds)
    start(in_child)
    if sys.argv[1] == "refused":  # they wait for something to come, else
        tell("recvfds", reduction.recvfds, None, 1)
        tell("recv_handle", reduction.recv_handle, None)
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_portable_program_is_told_what_to_do_instead(run: Run, way: dict[str, object]) -> None:
    done = run(PROGRAM, "refused", **way)
    assert (done.status, done.stderr) == (0, "")
    ways = ["argument", "DupFd", "message", "handle", "fds", "child", "recvfds", "recv_handle"]
    assert done.stdout.splitlines() == [f"{what} refused" for what in ways]


@pytest.mark.parametrize("way", NOT_PORTABLE)
def test_other_programs_pass_descriptors(run: Run, way: dict[str, object]) -> None:
    done = run(PROGRAM, "passed", **way)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "argument 0",
        "DupFd 0",
        "message passed",
        "handle passed",
        "fds passed",
        "child passed",
    ]


def test_what_is_multiprocessings_own_works_in_a_portable_program(run: Run) -> None:
    text = """
import multiprocessing, socket
def child(end, value, array, q, lock):
    with lock, value.get_lock():
        value.value += 1
    array[0] = 2.5
    end.recv().send("piped")
    q.put("queued")
def read(sock):
    print(sock.recv(10))
if __name__ == "__main__":
    for method in ["dragon", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        inner, their_inner = context.Pipe()
        value, array = context.Value("i", 1), context.Array("d", 2)
        q, lock = context.Queue(), context.Lock()
        p = context.Process(target=child, args=(theirs, value, array, q, lock))
        p.start()
        ours.send(their_inner)
        print(inner.recv(), q.get(), flush=True)
        p.join()
        print(value.value, array[:], flush=True)
    # A stock method's processes are on one machine.
    a, b = socket.socketpair()
    a.send(b"text")
    p = multiprocessing.get_context("spawn").Process(target=read, args=(b,))
    p.start()
    p.join()
"""
    done = run(text, options=["--portable"])
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["piped queued", "2 [2.5, 0.0]"] * 3 + ["b'text'"]


def test_the_option_reaches_children_of_children_however_they_are_made(tools: Run) -> None:
    text = """
import multiprocessing, sys
import _dragon_launch
def child(depth, q):
    q.put(_dragon_launch.is_portable)
    if depth:
        p = multiprocessing.get_context("dragon").Process(target=child, args=(depth - 1, q))
        p.start()
        p.join()
if __name__ == "__main__":
    q = multiprocessing.get_context("dragon").Queue()
    child(3, q)
    print([q.get() for _ in range(4)])
"""
    done = tools(text, options=["--portable"])
    assert (done.stdout, done.stderr) == ("[True, True, True, True]\n", "")


def test_a_value_that_is_neither_0_nor_1_is_an_error(run: Run) -> None:
    done = run("print('started')", env={"DRAGON_PORTABLE": "yes"})
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr == "dragon: DRAGON_PORTABLE: 'yes' is neither 0 nor 1\n"
