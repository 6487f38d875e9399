"""What must be new in each child of a server of forks, as if the child had imported it itself."""

from __future__ import annotations

import os
import pickle
import random
import sys
import time
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple


class _Kind(NamedTuple):
    """A kind of random generator: its class, how to read its state, how to give it a new one."""

    type: type
    read: Callable[[Any], Any]
    renew: Callable[[Any], Any]


#: To be renewed in each child: see `keep`.
_to_renew: list[tuple[Callable[[Any], Any], Any]] = []
#: Modules whose generators have been looked at. That of `random` is CPython's affair.
_seen = {"random"}


def after_fork() -> None:
    """Make this child, just forked, differ from its siblings where spawned ones would.

    Random generators that were seeded when preloaded modules were imported get new states from the
    operating system; `logging` counts from now.
    """
    for renew, generator in _to_renew:
        renew(generator)
    logging: Any = sys.modules.get("logging")
    if logging is not None:
        # What %(relativeCreated)d is relative to: seconds until 3.12, then nanoseconds.
        is_float = isinstance(logging._startTime, float)
        logging._startTime = time.time() if is_float else time.time_ns()


def marks(modules: Iterable[str]) -> dict[str, int]:
    """Tell the states of random generators: by "module.variable", a number that depends on it."""
    return {place: _mark(kind, generator) for place, kind, generator in _generators(modules)}


def has_others(modules: Iterable[str], places: Container[str]) -> bool:
    """Ask for random generators among the global variables of modules, but for known ones.

    Args:
        modules: names of imported modules.
        places: of the known ones, as "module.variable"; whichever other names they have, too.
    """
    found = _generators(set(modules) - _seen)
    known = {id(generator) for place, _, generator in found if place in places}
    return any(id(generator) not in known for _, _, generator in found)


def keep(modules: Iterable[str], other_marks: dict[str, int]) -> None:
    """Have the random generators of modules renewed in each child.

    A generator that has the same state as in another process, which imported the same modules, was
    seeded by its module with a number of the module's choice, and stays as it is.

    Args:
        modules: names of imported modules.
        other_marks: their `marks` in that other process; what is not in it, is renewed.
    """
    renewed = {id(generator) for _, generator in _to_renew}
    new = set(modules) - _seen
    _seen.update(new)
    for place, kind, generator in _generators(new):
        is_chosen = other_marks.get(place) == _mark(kind, generator)
        if not is_chosen and id(generator) not in renewed:
            renewed.add(id(generator))
            _to_renew.append((kind.renew, generator))


def _mark(kind: _Kind, generator: Any) -> int:
    return hash(pickle.dumps(kind.read(generator)))


def _generators(modules: Iterable[str]) -> list[tuple[str, _Kind, Any]]:
    """Find the generators among the global variables of modules."""
    kinds = _kinds()
    found = []
    for name in modules:
        module = sys.modules.get(name)
        for variable, value in list(getattr(module, "__dict__", {}).items()):
            # By the type itself: to ask an object for its class wakes lazy ones up.
            kind = next((kind for kind in kinds if issubclass(type(value), kind.type)), None)
            if kind is not None and not issubclass(type(value), random.SystemRandom):
                found.append((f"{name}.{variable}", kind, value))
    return found


def _kinds() -> list[_Kind]:
    """The kinds whose module has been imported."""
    kinds = [_Kind(random.Random, random.Random.getstate, random.Random.seed)]
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        legacy, modern = numpy.RandomState, numpy.Generator
        kinds.append(_Kind(legacy, lambda one: one.get_state(legacy=False), _renew_legacy_numpy))
        kinds.append(_Kind(modern, lambda one: one.bit_generator.state, _renew_numpy))
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Generator"):
        kind = torch.Generator
        kinds.append(_Kind(kind, kind.initial_seed, kind.seed))
    return kinds


def _renew_legacy_numpy(generator: Any) -> None:
    try:
        # 256 bits: a seventh of the time of seed(), which takes what it needs for all 624 words.
        generator.seed(memoryview(os.urandom(32)).cast("I"))
    except TypeError:  # it is over another bit generator than the usual one
        bits = generator.get_state(legacy=False)["bit_generator"]
        generator.set_state(getattr(sys.modules["numpy.random"], bits)().state)


def _renew_numpy(generator: Any) -> None:
    bits = generator.bit_generator
    bits.state = type(bits)().state
