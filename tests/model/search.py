"""The search that the models of this folder share, and the table that each prints as a program.

A model gives a state as an immutable value, and a function from a state to those after it. It
also says what is wrong with a state. Its module has

    MUTATIONS   ways to break the protocol, to show that the search would notice: name -> what
    SETTINGS    what the search allows, for the protocol as it stands: title -> setting
    BROKEN      for each mutation the setting that brings it out
    search      the search itself: of a setting

and a setting is a dataclass with a field `mutation`, "" for none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

State = TypeVar("State")
Setting = TypeVar("Setting", bound="AnySetting")


class AnySetting(Protocol):
    """What all settings have."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def mutation(self) -> str:
        """A key of MUTATIONS, or ""."""
        ...


@dataclasses.dataclass
class Result(Generic[State]):
    """What a search found.

    Attributes:
        n_states: distinct states visited.
        wrong: what went wrong, each with the states that show it.
        explained: likewise what looks wrong and is not: something outside of the model ends it.
    """

    n_states: int = 0
    wrong: dict[str, list[State]] = dataclasses.field(default_factory=dict)
    explained: dict[str, list[State]] = dataclasses.field(default_factory=dict)

    def note(self, what: str, s: State) -> None:
        """Something is wrong with this state."""
        self.wrong.setdefault(what, []).append(s)

    def note_explained(self, what: str, s: State) -> None:
        """Something only looks wrong with this state."""
        self.explained.setdefault(what, []).append(s)


def visit(
    first: State,
    steps: Callable[[State, Result[State]], Iterable[State]],
    setting: AnySetting,
) -> Result[State]:
    """Visit all states that can be reached, breadth first.

    With a mutation, until something is wrong.

    Args:
        first: where to begin.
        steps: called once with each state: notes what is wrong with it in the result, and gives
            the states after it.
        setting: only its mutation matters here.

    Returns:
        what was found.
    """
    seen = {first}
    front = [first]
    result: Result[State] = Result()
    while front and not (setting.mutation and result.wrong):
        next_front = []
        for s in front:
            for after in steps(s, result):
                if after not in seen:
                    seen.add(after)
                    next_front.append(after)
        front = next_front
    result.n_states = len(seen)
    return result


def broken(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """BROKEN of a model, with the mutations in the settings."""
    return {name: dataclasses.replace(s, mutation=name) for name, s in settings.items()}


def print_table(
    search: Callable[[Setting], Result[Any]],
    settings: Mapping[str, Setting],
    mutants: Mapping[str, Setting],
    mutations: Mapping[str, str],
) -> int:
    """Print what each search finds.

    Args:
        search: of a model.
        settings: of the protocol as it stands.
        mutants: BROKEN of the model.
        mutations: MUTATIONS of the model.

    Returns:
        0; 1 if the protocol is not what it should be, or a mutation of it is not found.
    """
    well = True
    titled = {f"broken: {mutations[name]}": s for name, s in broken(mutants).items()}
    for title, setting in {**settings, **titled}.items():
        result = search(setting)
        well &= bool(result.wrong) == bool(setting.mutation)
        print(f"{result.n_states:8}  {title}: {_in_words(result)}", flush=True)
    return 0 if well else 1


def _in_words(result: Result[Any]) -> str:
    found = {**result.wrong, **result.explained}
    return "; ".join(f"{what} ({len(states)})" for what, states in found.items()) or "nothing wrong"
