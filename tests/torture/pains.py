"""The programs of the torture suite, and how each must end under start method "dragon".

A program's docstring is its name in the table; what it is called with, and what is done to it
while it runs, stands here. Under another start method the same is done, and what happens is
written down, not judged.
"""

from __future__ import annotations

from typing import NamedTuple

CTRL_C = "Ctrl-C"
KILL_GROUP = "SIGKILL to its process group"


class Pain(NamedTuple):
    """A program, what happens to it, and its end under "dragon"."""

    program: str
    #: What it prints, without what it printed before something was done to it; or
    #: "raises X": it ends with that exception; or "dies of SIGX".
    end: str
    words: tuple[str, ...] = ()
    #: What is said of these words in the table.
    name: str = ""
    #: When it has printed this line: (line, what is done then: CTRL_C, KILL_GROUP, or a signal).
    events: tuple[tuple[str, str], ...] = ()
    #: How many tracebacks are seen then; None: does not matter.
    n_tracebacks: int | None = None
    #: It has a terminal of its own.
    has_terminal: bool = False
    #: It needs the packages of dragon.
    is_ours: bool = False

    @property
    def label(self) -> str:
        """A word for lists of tests."""
        return "-".join((self.program, *self.words))


def _dies(program: str, end: str, *, is_ours: bool = False) -> list[Pain]:
    ways = {"SIGKILL": "SIGKILL", "SIGSEGV": "SIGSEGV", "exit": "os._exit"}
    return [Pain(program, end, (way,), name, is_ours=is_ours) for way, name in ways.items()]


def _ctrl_c(program: str, *more: tuple[str, str], n_tracebacks: int | None = None) -> Pain:
    events = (("ready", CTRL_C), *more)
    return Pain(
        program, "dies of SIGINT", events=events, n_tracebacks=n_tracebacks, has_terminal=True
    )


def _head_ends(what: str, in_words: str, how: str, end: str) -> Pain:
    """how: return, exit, exception, or what is done to it."""
    events = () if how in ("return", "exit", "exception") else (("ready", how),)
    return Pain("head_ends", end, (what, how), f"{in_words} ({how})", events=events)


def _killed(what: str, in_words: str) -> Pain:
    return _head_ends(what, in_words, "SIGKILL", "dies of SIGKILL")


_EVERYTHING = "daemons+pool+manager+listener+memory"

PAINS = [
    *_dies("dies_in_map", "raises WorkerDied"),
    *_dies("dies_in_apply", "raises WorkerDied"),
    *_dies("dies_in_imap", "0 1 WorkerDied 9 16"),
    *_dies("dies_in_executor", "raises BrokenProcessPool"),
    *_dies("dies_in_dragon_executor", "0 1 WorkerDied 9 16", is_ours=True),
    Pain("initializer_raises", "raises BrokenProcessPool"),
    Pain("no_guard_pool", "raises BrokenProcessPool"),
    Pain("no_guard_process", "raises ChildProcessError"),
    Pain("base_exception", "raises Stop", ("Stop",), "a BaseException"),
    Pain("base_exception", "raises RuntimeError", ("SystemExit",), "SystemExit"),
    Pain("base_exception", "raises RuntimeError", ("KeyboardInterrupt",), "KeyboardInterrupt"),
    Pain("result_not_picklable", "raises MaybeEncodingError"),
    Pain("result_not_unpicklable", "raises MaybeEncodingError"),
    Pain("argument_not_unpicklable", "raises ValueError"),
    Pain("exception_not_picklable", "raises MaybeEncodingError"),
    Pain("exception_not_unpicklable", "raises MaybeEncodingError"),
    Pain("lambda_in_map", "[1, 2, 3]"),
    Pain("pool_in_pool", "8"),
    Pain("put_then_join", "100000000"),
    Pain("exits_after_put", "the answer"),
    Pain("killed_in_put", "more"),
    Pain("killed_in_get", "an item"),
    Pain("pipe_peer_killed", "raises EOFError"),
    Pain("manager_killed", "the manager is gone"),
    Pain("shared_memory_reader", "hello hello"),
    Pain("shared_memory_child", "hello hello hello"),
    Pain(
        "threads_and_processes",
        "[0, 1, 2, 3, 4, 5] [328350, 328350, 328350] {0}",
    ),
    Pain("random_starts", "all accounted for", ("3", "1000", "1")),
    _ctrl_c("ctrl_c_in_map", n_tracebacks=1),
    _ctrl_c("ctrl_c_in_processes"),
    _ctrl_c("ctrl_c_twice", ("cleaning up", CTRL_C)),
    _ctrl_c("ctrl_c_in_import", n_tracebacks=1),
    _ctrl_c("ctrl_c_in_pool", n_tracebacks=1),
    _killed("processes", "processes that have processes"),
    _killed("pool", "a pool"),
    _killed("manager", "a manager"),
    _killed("listener", "a listener"),
    _killed("memory", "shared memory"),
    *[
        _head_ends(_EVERYTHING, "all of these", how, end)
        for how, end in {
            "return": "",
            "exit": "exit status 3",
            "exception": "raises LookupError",
            "SIGTERM": "dies of SIGTERM",
            "SIGINT": "dies of SIGINT",
            "SIGHUP": "dies of SIGHUP",
            "SIGSEGV": "dies of SIGSEGV",
            KILL_GROUP: "dies of SIGKILL",
        }.items()
    ],
]
