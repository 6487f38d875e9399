"""Terminal, standard streams and signals, as a shell sees them."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launcher_support import PYTHON, clean_environment

TIMEOUT_S = 20


def start(exe: Path | str, *words: str) -> subprocess.Popen[str]:
    """Start a program that says when it is ready."""
    process = subprocess.Popen(
        [str(exe), *words],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


SLEEP = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_program_dies_of_the_signal_as_python3_does(exe: Path, number: int) -> None:
    outcomes = []
    for executable in (exe, PYTHON):
        process = start(executable, "-c", SLEEP)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        outcomes.append((process.returncode, errors))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == -number


def test_shell_sees_130_after_control_c(exe: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(60)"
    shell = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" 2>/dev/null; echo $?', str(exe), code],
        env=clean_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert shell.stdout == "130\n"


def test_closed_pipe_ends_the_program_as_python3(exe: Path) -> None:
    outcomes = []
    for executable in (exe, PYTHON):
        process = start(executable, "-c", "print('ready', flush=True)\nwhile 1: print('x' * 1000)")
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        outcomes.append((process.stderr.read(), process.wait(timeout=TIMEOUT_S)))
        process.stderr.close()
    assert outcomes[0] == outcomes[1]


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, clean_environment() | {"TERM": "dumb"})
        self.unread = b""

    def read_until(self, text: str) -> str:
        """Return the output up to text, and keep what comes after it for the next call."""
        end = time.monotonic() + TIMEOUT_S
        while text.encode() not in self.unread:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.unread!r}"
            self.unread += os.read(self.fd, 4096)
        before, found, self.unread = self.unread.partition(text.encode())
        return (before + found).decode()

    def write(self, text: str) -> None:
        """Type the text."""
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        """Read to the end, and return the exit status as waitpid gives it."""
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass  # EIO: the program has closed the terminal
        os.close(self.fd)
        return os.waitpid(self.pid, 0)[1]


def test_prompt_is_pythons_and_control_d_ends_it(exe: Path) -> None:
    terminal = Terminal(str(exe))
    greeting = terminal.read_until(">>> ")
    assert greeting.startswith("Python 3.")
    assert 'Type "help", "copyright", "credits" or "license" for more information.' in greeting
    terminal.write("6 * 7\r")
    assert "42\r\n" in terminal.read_until("\n>>> ")
    terminal.write("\x04")
    assert terminal.wait() == 0


def test_control_c_ends_a_statement_but_not_the_prompt(exe: Path) -> None:
    terminal = Terminal(str(exe), "-q")
    terminal.read_until(">>> ")
    terminal.write("import time; print('run' + 'ning'); time.sleep(60)\r")
    terminal.read_until("running")
    terminal.write("\x03")
    terminal.read_until("KeyboardInterrupt")
    terminal.read_until(">>> ")
    terminal.write("raise SystemExit(5)\r")
    assert os.waitstatus_to_exitcode(terminal.wait()) == 5


def test_control_c_on_the_terminal_kills_by_sigint(exe: Path) -> None:
    terminal = Terminal(str(exe), "-c", SLEEP)
    terminal.read_until("ready")
    terminal.write("\x03")
    assert os.WTERMSIG(terminal.wait()) == signal.SIGINT


def test_streams_are_line_buffered_on_a_terminal(exe: Path) -> None:
    code = "import sys; print(sys.stdin.isatty(), sys.stdout.line_buffering); input('? ')"
    terminal = Terminal(str(exe), "-c", code)
    assert "True True" in terminal.read_until("? ")
    terminal.write("x\r")
    assert terminal.wait() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stay_closed(exe: Path, closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; streams = sys.stdin, sys.stdout, sys.stderr\n"
        "open(sys.argv[1], 'w').write(str([stream is None for stream in streams]))"
    )
    texts = []
    for executable in (exe, PYTHON):
        command = f'exec "$0" -c "$1" "$2" {closed}'
        words = ["sh", "-c", command, str(executable), code, str(tmp_path / "result")]
        subprocess.run(words, env=clean_environment(), timeout=TIMEOUT_S, check=True)
        texts.append((tmp_path / "result").read_text())
    assert texts[0] == texts[1]
