"""Preloading: modules of the library, imported once in a server of forks for all its children.

The server is a process without any of the program's state, from which children are forked. A child
that runs the program's main finds loaded what main imports from the standard library and from
site-packages, and yet looks as if it had imported that itself.

`plan` reads what the program imports, `load` tries that out and imports what is safe,
`load_at_once` does without the trial in a server that can be thrown away, `changed` asks for each
child whether the imports still hold, `after_fork` makes the child differ from its siblings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dragon_overlay.preload import at_once, rules, state, traces
from dragon_overlay.preload.environment import changed, noting_what_is_read
from dragon_overlay.preload.places import is_library
from dragon_overlay.preload.reading import plan
from dragon_overlay.preload.state import after_fork
from dragon_overlay.preload.trial import Verdict, import_as_main_does, try_out

__all__ = ["Report", "SpoiledError", "after_fork", "changed", "load", "load_at_once", "plan"]


class Report(NamedTuple):
    """What became of one module.

    Attributes:
        name: the module.
        loaded: whether it is loaded in the server; otherwise each child imports it itself.
        reason: why not, in a few words; "" if it is loaded.
    """

    name: str
    loaded: bool
    reason: str


class SpoiledError(RuntimeError):
    """An import left something in the server that it had not left in its trial.

    No child should be forked from this process any more.
    """


def load(names: Sequence[str], limit_s: float = 30.0) -> list[Report]:
    """Import modules in this process, a server of forks, if they are safe for its children.

    Blocks: for the imports here and, before, in a child that is thrown away (`trial`). What is not
    safe, or raises, is left to the children: they will see the same error in its place. Nothing
    else may open descriptors, start threads or wait for any child in this process meanwhile, and
    SIGCHLD must not be ignored.

    ``sys.path`` is to be the program's. Reads DRAGON_PRELOAD_SKIP.

    Args:
        names: what `plan` chose.
        limit_s: how long one import may take in the trial.

    Returns:
        A report on each name, in order.

    Raises:
        SpoiledError: see there; modules have been imported.
        OSError: no process or descriptor could be had for a trial. What has been imported until
            then is safe.
    """
    reports: dict[str, Report] = {}
    unsafe: dict[str, str] = {}

    def excluded(name: str) -> str:
        found = map(unsafe.get, rules.with_parents(name))
        return rules.why_excluded(name) or next(filter(None, found), "")

    state.keep(sys.modules, {})
    before, threads = traces.look(), traces.n_threads()
    with noting_what_is_read():
        pending = list(dict.fromkeys(names))
        while pending:
            pending = _settle_known(pending, reports, excluded)
            verdicts = try_out(pending, excluded, limit_s) if pending else []
            for verdict in verdicts:
                report = reports[verdict.name] = _take(verdict)
                if not report.loaded:
                    unsafe[verdict.name] = report.reason
            pending = pending[len(verdicts) :]
    _forget_finders()
    _check(before, threads)
    return [reports[name] for name in dict.fromkeys(names)]


def load_at_once(names: Sequence[str]) -> None:
    """Import modules in this process without a trial: twice as fast as `load`, but all or nothing.

    Otherwise as `load`.

    Raises:
        SpoiledError: one of them is not safe, or cannot be imported. This process must end;
            another may try `load`.
    """
    state.keep(sys.modules, {})
    with noting_what_is_read():
        pending = [name for name in dict.fromkeys(names) if name not in sys.modules]
        reason = at_once.import_all(pending, rules.why_excluded)
    if reason:
        raise SpoiledError(reason)
    _forget_finders()


def _settle_known(
    names: Sequence[str], reports: dict[str, Report], excluded: Callable[[str], str]
) -> list[str]:
    """Report on names that need no trial; return the others."""
    left = []
    for name in names:
        reason = excluded(name)
        if reason or name in sys.modules:
            reports[name] = Report(name, not reason, reason)
        else:
            left.append(name)
    return left


def _take(verdict: Verdict) -> Report:
    """Import a module here if its trial went well."""
    if verdict.reason:
        return Report(verdict.name, False, verdict.reason)
    known, reason = set(sys.modules), ""
    try:
        import_as_main_does(verdict.name)
    except BaseException as error:  # noqa: BLE001  # whatever it is: not the server's concern
        reason = f"importing it raises {type(error).__name__}, though not in the trial"
    state.keep(set(sys.modules) - known, verdict.marks)
    return Report(verdict.name, not reason, reason)


def _check(before: traces.Traces, threads: int) -> None:
    if traces.n_threads() > threads:
        traces.survives_fork()
    if traces.has_more_threads(threads):
        raise SpoiledError("a preloaded module started a thread")
    reason = traces.difference(before, traces.look())
    if reason:
        raise SpoiledError(f"of a preloaded module: {reason}")


def _forget_finders() -> None:
    """Have children look anew into folders of the program.

    A finder that has listed a folder notices a new file by the folder's time, which need not move
    when the program writes the file soon after.
    """
    for folder in list(sys.path_importer_cache):
        if not is_library(folder):
            del sys.path_importer_cache[folder]
