"""What is known of certain packages: the lists by which preloading decides."""

from __future__ import annotations

import os

#: Packages that start threads when they are imported, and yet survive a fork: OpenBLAS ends its
#: threads in a pthread_atfork handler and starts new ones when they are next needed, on both
#: sides. Each has a test in tests/overlay/test_preload_survivors.py; add none without.
SURVIVE_FORK = frozenset({"numpy", "pandas", "scipy"})

#: Packages that are not even tried out, with the reason. Only what does harm by the trial alone, or
#: what the trial cannot see, belongs here; what it sees needs no entry.
NEVER = {
    "mpi4py": "importing it starts MPI, and MPI ends the job when a process just ends",
}

#: Beginnings of the names of variables that libraries in C look at when they are loaded, which
#: nobody can watch: those of the linear algebra of numpy and of OpenMP.
READ_BY_LIBRARIES = ("BLIS_", "GOTO_", "KMP_", "MKL_", "OMP_", "OPENBLAS_")


def why_excluded(name: str) -> str:
    """Say why a module must not be preloaded, whatever a trial would show; "" if it may.

    Reads DRAGON_PRELOAD_SKIP.
    """
    skipped = names_in(os.environ.get("DRAGON_PRELOAD_SKIP", ""))
    for package in with_parents(name):
        if package in skipped:
            return "DRAGON_PRELOAD_SKIP names it"
        if package in NEVER:
            return NEVER[package]
    return ""


def names_in(value: str) -> list[str]:
    """Return the names of a list with commas."""
    return [name for name in map(str.strip, value.split(",")) if name]


def with_parents(name: str) -> list[str]:
    """Return "a", "a.b" and "a.b.c" for "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
