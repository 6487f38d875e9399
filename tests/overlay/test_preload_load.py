"""What preloading tries out and imports: dragon_overlay.preload.load, in a server of forks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from overlay_support import all_gone, environment, until, write_script
from preload_support import serve, server_text, write_tree

Serve = Callable[..., Any]

LOAD = "tell([list(report) for report in preload.load({names}, {limit})])"


@pytest.fixture
def load(tmp_path: Path) -> Serve:
    """Load names in a server with the given files; the reports."""

    def load(files: dict[str, str], names: list[str], limit: float = 30, **env: str) -> Any:
        write_tree(tmp_path, files)
        return serve(tmp_path, LOAD.format(names=names, limit=limit), **env)

    return load


def test_what_is_safe_is_loaded_and_children_find_it(tmp_path: Path) -> None:
    write_tree(tmp_path, {"site-packages/lib/__init__.py": "", "site-packages/lib/part.py": ""})
    text = """
reports = preload.load(["json", "lib", "lib.part"])
tell([[list(report) for report in reports], forked(lambda: "lib.part" in sys.modules)])
"""
    reports, in_child = serve(tmp_path, text)
    assert reports == [[name, True, ""] for name in ("json", "lib", "lib.part")]
    assert in_child


UNSAFE = {
    "it starts a thread": (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    ),
    "it leaves descriptor": "import os; fd = os.open('/dev/null', os.O_RDONLY)",
    "open (socket:": "import socket; s = socket.socket()",
    "it closes a descriptor": "import os; os.close(0)",
    "it starts a process": "import subprocess; p = subprocess.Popen(['sleep', '60'])",
    "it changes how signals": "import signal; signal.signal(signal.SIGUSR1, lambda *a: None)",
    "it changes how signals are": "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "it changes how signals are handled": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"
    ),
    "it maps memory": "import mmap; m = mmap.mmap(-1, 4096)",
    "it writes to standard output or error": "print('hello')",
    "it writes to standard output": "import os; os.write(2, b'hello')",
    "importing it raises ZeroDivisionError": "1 / 0",
    "importing it raises SystemExit": "raise SystemExit(0)",
    "importing it raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "importing it raises SyntaxError": ")",
    "it keeps the process from being forked": (
        "import os; os.register_at_fork(after_in_child=lambda: os._exit(3))"
    ),
    "importing it ends the process (status 3)": "import os; os._exit(3)",
    "importing it ends the process (status -11)": "import os; os.kill(os.getpid(), 11)",
    "importing it takes more than 0.5 s": "import time; time.sleep(60)",
    "importing it takes": "import os; os.closerange(3, 256)\nwhile True: pass",
}


@pytest.mark.parametrize("reason", UNSAFE)
def test_what_a_fork_would_have_trouble_with_is_left_to_the_children(
    tmp_path: Path, reason: str
) -> None:
    files = {
        "bad.py": f"import before\n{UNSAFE[reason]}",
        "user.py": "try:\n    import bad\nexcept ImportError:\n    pass",
        "before.py": "",
        "after.py": "",
    }
    write_tree(tmp_path / "site-packages", files)
    text = """
from dragon_overlay.preload import traces
before, threads = traces.look(), traces.n_threads()
reports = preload.load(["before", "bad", "user", "after"], 0.5)
left = traces.difference(before, traces.look()), traces.n_threads() - threads, traces.has_children()
tell([[list(report) for report in reports], left, "bad" in sys.modules])
"""
    reports, left, is_loaded = serve(tmp_path, text)
    first, bad, user, last = reports
    assert (first, last) == (["before", True, ""], ["after", True, ""])
    assert bad[:2] == ["bad", False]
    assert reason in bad[2]
    assert user == ["user", False, f"it imports bad: {bad[2]}"]
    assert (left, is_loaded) == (["", 0, False], False)


STARTS_A_THREAD = """
import os, threading
told_to_end = threading.Event()
thread = threading.Thread(target=told_to_end.wait, daemon=True)
thread.start()
"""
ENDS_IT_AT_FORKS = """
def end():
    told_to_end.set()
    thread.join()
os.register_at_fork(before=end)
"""


def test_threads_of_known_packages_may_be_if_they_end_at_a_fork(load: Serve) -> None:
    files = {
        "site-packages/scipy.py": STARTS_A_THREAD + ENDS_IT_AT_FORKS,
        "site-packages/user.py": "import scipy",
        "site-packages/unknown.py": STARTS_A_THREAD + ENDS_IT_AT_FORKS,
        "site-packages/pandas.py": STARTS_A_THREAD,
    }
    assert load(files, ["user", "scipy", "unknown", "pandas"]) == [
        ["user", True, ""],
        ["scipy", True, ""],
        ["unknown", False, "it starts a thread"],
        ["pandas", False, "it starts a thread"],
    ]


def test_a_report_is_not_written_into_a_file_that_took_the_place_of_the_pipe(
    tmp_path: Path, load: Serve
) -> None:
    file = tmp_path / "precious"
    source = f"import os\nos.closerange(3, 256)\nfor _ in range(99): os.open({str(file)!r}, 66)"
    (_, loaded, reason), last = load(
        {"site-packages/bad.py": source, "site-packages/last.py": ""}, ["bad", "last"]
    )
    assert (loaded, last) == (False, ["last", True, ""])
    assert reason == "importing it ends the process (status 1)"
    assert file.read_bytes() == b""


def test_an_import_that_hangs_is_waited_for_once(load: Serve) -> None:
    files = {"site-packages/slow.py": "open('tried', 'a').write('x')\nimport time\ntime.sleep(60)"}
    users = {f"site-packages/user{number}.py": "import slow" for number in range(3)}
    reports = load(files | users, ["slow", "user0", "user1", "user2"], 0.3)
    assert [loaded for _, loaded, _ in reports] == [False] * 4
    assert reports[3][2] == "it imports slow: importing it takes more than 0.3 s"


def test_modules_of_an_unsafe_package_are_not_tried(tmp_path: Path, load: Serve) -> None:
    files = {
        "site-packages/bad/__init__.py": f"open({str(tmp_path / 'n')!r}, 'a').write('x')\nprint(1)",
        "site-packages/bad/part.py": "",
    }
    reports = load(files, ["bad", "bad.part"])
    assert [loaded for _, loaded, _ in reports] == [False, False]
    assert (tmp_path / "n").read_text() == "x"


def test_to_ask_whether_an_unsafe_module_exists_is_not_to_import_it(load: Serve) -> None:
    files = {
        "site-packages/bad.py": "print(1)",
        "site-packages/asking.py": "import importlib.util\nassert importlib.util.find_spec('bad')",
    }
    assert load(files, ["bad", "asking"])[1] == ["asking", True, ""]


def test_the_programs_own_modules_are_not_executed(tmp_path: Path, load: Serve) -> None:
    files = {
        "own.py": f"open({str(tmp_path / 'executed')!r}, 'w')",
        "site-packages/plugins.py": "try:\n    import own\nexcept BaseException:\n    pass",
    }
    reason = "it imports own: it is the program's own"
    assert load(files, ["plugins"]) == [["plugins", False, reason]]
    assert not (tmp_path / "executed").exists()


def test_own_modules_that_are_named_are_loaded_with_those_they_import(load: Serve) -> None:
    files = {"own/__init__.py": "import other", "other.py": "", "own/part.py": ""}
    assert load(files, ["own.part"]) == [["own.part", True, ""]]


def test_a_package_of_the_library_may_lie_in_a_namespace_with_own_ones(load: Serve) -> None:
    files = {"space/own.py": "", "site-packages/space/theirs.py": ""}
    assert load(files, ["space.theirs"]) == [["space.theirs", True, ""]]


def test_packages_that_the_user_skips_are_loaded_by_nobody(load: Serve) -> None:
    files = {
        "site-packages/lib/__init__.py": "",
        "site-packages/lib/part.py": "",
        "site-packages/library.py": "",
        "site-packages/user.py": "import lib.part",
    }
    names = ["lib.part", "user", "library"]
    assert load(files, names, DRAGON_PRELOAD_SKIP="x, lib") == [
        ["lib.part", False, "DRAGON_PRELOAD_SKIP names it"],
        ["user", False, "it imports lib: DRAGON_PRELOAD_SKIP names it"],
        ["library", True, ""],
    ]


def test_mpi4py_is_not_even_tried(tmp_path: Path, load: Serve) -> None:
    files = {"site-packages/mpi4py/__init__.py": f"open({str(tmp_path / 'tried')!r}, 'w')"}
    ((name, loaded, reason),) = load(files, ["mpi4py"])
    assert (name, loaded) == ("mpi4py", False)
    assert "MPI" in reason
    assert not (tmp_path / "tried").exists()


@pytest.mark.parametrize("load", ["load", "load_at_once"])
def test_a_module_that_dragon_completes_is_loaded_and_looked_for_once(
    tmp_path: Path, load: str
) -> None:
    text = """
import _dragon_boot
class Counting:
    asked = []
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        cls.asked.append(name)
sys.meta_path.insert(1, Counting)
name, completed = "concurrent.futures.process", []
_dragon_boot.complete(name, completed.append)
preload.{load}([name])
tell([forked(lambda: len(completed)), Counting.asked.count(name)])
"""
    assert serve(tmp_path, text.format(load=load)) == [1, 1]


def test_a_module_does_not_take_the_place_of_a_function_of_its_name(tmp_path: Path) -> None:
    files = {"lib/__init__.py": "from lib._run import run", "lib/_run.py": "def run(): return 5"}
    write_tree(tmp_path / "site-packages", files | {"lib/run.py": ""})
    text = """
preload.load(["lib", "lib.run"])
def child():
    from lib import run
    return run()
tell(forked(child))
"""
    assert serve(tmp_path, text) == 5


def test_a_name_twice_or_loaded_already_is_no_trial(load: Serve) -> None:
    assert load({}, ["os", "json", "json"]) == [["os", True, ""], ["json", True, ""]]


def test_what_an_import_started_ends_with_the_trial(tmp_path: Path, load: Serve) -> None:
    pids = str(tmp_path / "pids")
    source = f"""
import os, subprocess
child = subprocess.Popen(["sleep", "60"])
os.write(os.open({pids!r}, os.O_WRONLY | os.O_CREAT), str(child.pid).encode())
"""
    assert load({"site-packages/bad.py": source}, ["bad"])[0][1] is False
    assert all_gone([int(Path(pids).read_text())])


def test_a_trial_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    source = f"""
import os, time
with open({str(pids) + "~"!r}, "w") as file:
    print(os.getppid(), os.getpid(), file=file)
os.rename({str(pids) + "~"!r}, {str(pids)!r})
time.sleep(60)
"""
    write_tree(tmp_path, {"site-packages/slow.py": source})
    program = write_script(tmp_path, server_text(tmp_path, "preload.load(['slow'], 0.5)"))
    head = subprocess.Popen([sys.executable, str(program)], env=environment())
    assert until(pids.exists)
    server, trial = map(int, pids.read_text().split())
    os.kill(server, signal.SIGKILL)
    assert head.wait(10) != 0
    assert all_gone([trial])


def test_without_a_descriptor_left_it_is_an_os_error_and_nothing_is_left(tmp_path: Path) -> None:
    write_tree(tmp_path, {"site-packages/lib.py": ""})
    text = """
import resource
from dragon_overlay.preload import traces
told = []
for n_free in range(8):
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    before = traces.look()
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, resource.getrlimit(7)[1]))
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for fd in taken[:n_free]:
            os.close(fd)
    try:
        told.append(preload.load(["lib"])[0].loaded)
    except OSError as error:
        told.append(error.errno)
    for fd in taken[n_free:]:
        os.close(fd)
    assert not traces.difference(before, traces.look()), n_free
    assert not traces.has_children()
tell(told)
"""
    told = serve(tmp_path, text)
    assert told[0] == 24
    assert told[-1] is True


def test_a_module_that_behaves_otherwise_than_in_its_trial_spoils_the_server(
    tmp_path: Path,
) -> None:
    source = f"""
import os
mark = {str(tmp_path / "mark")!r}
if os.path.exists(mark):
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
open(mark, "w").close()
"""
    write_tree(tmp_path, {"site-packages/odd.py": source})
    text = """
try:
    preload.load(["odd"])
except preload.SpoiledError as error:
    tell(str(error))
os._exit(0)
"""
    assert serve(tmp_path, text) == "a preloaded module started a thread"


def test_an_error_that_was_not_in_the_trial_is_left_to_the_children(tmp_path: Path) -> None:
    source = f"""
import os
os.mkdir({str(tmp_path / "once")!r})
"""
    write_tree(tmp_path, {"site-packages/odd.py": source})
    reports = serve(tmp_path, LOAD.format(names=["odd"], limit=30))
    assert reports == [
        ["odd", False, "importing it raises FileExistsError, though not in the trial"]
    ]


def test_children_find_modules_that_the_program_writes_later(tmp_path: Path) -> None:
    write_tree(tmp_path, {"site-packages/lib.py": ""})
    text = f"""
preload.load(["lib"])
status = os.stat({str(tmp_path)!r})
open({str(tmp_path / "late.py")!r}, "w").close()
os.utime({str(tmp_path)!r}, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if at once
def child():
    import late
    return late.__name__
tell(forked(child))
"""
    assert serve(tmp_path, text) == "late"


# ---- the environment ----


def changes_after(tmp_path: Path, source: str, *environments: str, **env: str) -> Any:
    """What `changed` says of environments, given as text, after a module was loaded."""
    write_tree(tmp_path, {"site-packages/lib.py": f"import os\n{source}"})
    answers = ", ".join(f"preload.changed({text})" for text in environments)
    return serve(
        tmp_path, f"start = dict(os.environ)\npreload.load(['lib'])\ntell([{answers}])", **env
    )


@pytest.mark.parametrize(
    "source",
    [
        "os.environ.get('LOOK')",
        "'LOOK' in os.environ",
        "os.getenv('LOOK')",
        "os.getenvb(b'LOOK')",
        "dict(os.environ)",
        "os.environ.pop('LOOK')",
    ],
)
def test_a_variable_that_an_import_looked_at_must_not_change(tmp_path: Path, source: str) -> None:
    told = changes_after(
        tmp_path,
        source,
        "start",
        "start | {'LOOK': '2'}",
        "start | {'ANOTHER': '2'}",
        LOOK="1",
    )
    assert told == ["", "LOOK", ""]


def test_a_variable_that_no_import_looked_at_may_change(tmp_path: Path) -> None:
    assert changes_after(tmp_path, "", "start | {'KNOWN': '2'}", KNOWN="1") == [""]


def test_a_variable_may_have_the_value_that_an_import_gave_it(tmp_path: Path) -> None:
    told = changes_after(
        tmp_path,
        "os.environ.setdefault('SET', '1')",
        "start",
        "start | {'SET': '1'}",
        "start | {'SET': '2'}",
    )
    assert told == ["", "", "SET"]


def test_variables_of_libraries_in_c_must_not_change(tmp_path: Path) -> None:
    told = changes_after(
        tmp_path,
        "",
        "start",
        "start | {'OMP_NUM_THREADS': '3'}",
        "{name: start[name] for name in start if name != 'OMP_NUM_THREADS'}",
        "start | {'MKL_X': ''}",
        OMP_NUM_THREADS="2",
    )
    assert told == ["", "OMP_NUM_THREADS", "OMP_NUM_THREADS", "MKL_X"]


def test_any_environment_will_do_before_something_is_loaded(tmp_path: Path) -> None:
    assert serve(tmp_path, "tell(preload.changed({'OMP_NUM_THREADS': '1'}))") == ""
