"""Programs and packages, made for the tests of preloading, and servers of forks that load them."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overlay_support import run_script

#: A forked copy goes on as the server: it has one thread, and no other part of the runtime moves.
SERVER = """
import json, os, sys
import dragon_overlay
from dragon_overlay import preload
if server := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]))
sys.path[:] = {path}
def forked(action):
    "What action returns in a child of the server."
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        preload.after_fork()
        os.write(writer, json.dumps(action()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)
def tell(value):
    print(json.dumps(value), flush=True)
"""


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files, by their paths below the folder; the folder."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def server_text(folder: Path, text: str) -> str:
    """The program of a server whose path has the folder and its site-packages in front."""
    path = [str(folder), str(folder / "site-packages"), *sys.path]
    return SERVER.format(path=path) + text


def serve(folder: Path, text: str, **env: str) -> Any:
    """Run a server to its end; what it told."""
    outcome = run_script(server_text(folder, text), folder=folder, env=env)
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    return json.loads(outcome.stdout)
