"""The list of groups: functions that measure what belongs together, in one program each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mp.measure import Recorder

#: Measures with the context it is given.
Group = Callable[[Any, Recorder], None]

GROUPS: dict[str, Group] = {}

#: Groups that are not pinned: they have more processes than cores, or start them.
FREE = ("process", "pool", "executor", "manager")


def group(name: str) -> Callable[[Group], Group]:
    """Make a function a group of that name."""

    def add(function: Group) -> Group:
        GROUPS[name] = function
        return function

    return add


def is_free(name: str) -> bool:
    """Whether the scheduler is to place the processes of that group."""
    return name.partition(".")[0] in FREE
