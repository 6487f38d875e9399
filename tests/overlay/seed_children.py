"""What children of the seed's tests run inside pytest. Imports no pytest: they start fast."""

import os
import random
import resource
import secrets
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from seed_tools import way

LIMITS = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))

#: Lines of /proc/self/status that the kernel lets a child inherit.
STATUS = (
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NoNewPrivs",
    "Cpus_allowed",
    "Mems_allowed",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
)


def facts() -> dict[str, Any]:
    """What a process has inherited, or reads from what it has inherited."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    return {
        "status": {name: status.get(name) for name in STATUS},
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "handlers": {
            number: repr(signal.getsignal(number)).split(" at ")[0]
            for number in signal.valid_signals()
        },
        "cores": sorted(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "scheduler": (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
        "group": os.getpgrp(),
        "session": os.getsid(0),
        "control group": Path("/proc/self/cgroup").read_text(),
        "badness": Path("/proc/self/oom_score_adj").read_text(),
        "cwd": os.readlink("/proc/self/cwd"),
        "root": os.readlink("/proc/self/root"),
        "environment": dict(os.environb),
        "zone": time.tzname,
        "path": sys.path,
        "argv": sys.argv,
        "flags": str(sys.flags),
        "warnings": sys.warnoptions,
        "streams": [stream_facts(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "standard": [kind_of(fd) for fd in range(3)],
        "dispositions": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt")},
        "parent": os.getppid(),
        "threads": (threading.active_count(), threading.get_native_id() == os.getpid()),
        "temporary": tempfile.gettempdir(),
    }


def stream_facts(stream: Any) -> Any:
    if stream is None:
        return None
    # The name of what the standard library opens as sys.stdin is some number.
    names = ("mode", "encoding", "errors", "line_buffering", "write_through", "newlines")
    return [getattr(stream, name) for name in names] + [type(stream.buffer).__name__]


def kind_of(fd: int) -> Any:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def put_facts(results: Any) -> None:
    results.put((way(), facts()))


def put_draws(results: Any) -> None:
    """Numbers that no two processes may have in common."""
    draws: dict[str, Any] = {
        "random": random.random(),
        "module": random.SystemRandom().random(),
        "secret": secrets.token_hex(8),
        "uuid4": str(uuid.uuid4()),
        "uuid1": str(uuid.uuid1()),
        "name": next(tempfile._get_candidate_names()),
        "pid": os.getpid(),
    }
    if "numpy" in sys.modules:
        draws["numpy"] = float(sys.modules["numpy"].random.random())
        draws["generator"] = float(sys.modules["numpy"].random.default_rng().random())
    results.put(draws)


def put_descriptors(results: Any) -> None:
    """The descriptors of this process and what they lead to, but that of the listing itself."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = (os.readlink(f"/proc/self/fd/{name}"), os.get_inheritable(int(name)))
        except OSError:
            continue
    results.put(found)


def sum_of_files(results: Any, handles: Any) -> None:
    """Read a number from each of many passed files."""
    total = 0
    for handle in handles:
        with open(handle.detach()) as file:
            total += int(file.read())
    results.put(total)
