"""The protocols of shared memory do no harm, whoever dies when, and the searches would notice."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import eventcount
import heap_remote
import heap_runs
import in_flight
import lifetimes
import lock
import pipe
import pool_tasks
import pytest
from search import Result, broken

MODELS = {
    "eventcount": eventcount,
    "heap": heap_remote,
    "heap runs": heap_runs,
    "in flight": in_flight,
    "lifetimes": lifetimes,
    "lock": lock,
    "pipe": pipe,
    "pool tasks": pool_tasks,
}

#: Fewer states in all would mean that a search does not get around.
N_STATES = {
    "eventcount": 160_000,
    "heap": 200_000,
    "heap runs": 150_000,
    "in flight": 150_000,
    "lifetimes": 150_000,
    "lock": 300_000,
    "pipe": 60_000,
    "pool tasks": 60_000,
}


@cache
def found(model: ModuleType, title: str) -> Result[Any]:
    """What the model's search finds in the protocol as it stands."""
    result: Result[Any] = model.search(model.SETTINGS[title])
    return result


@pytest.mark.parametrize(
    ("model", "title"),
    [
        pytest.param(model, title, id=f"{name}: {title}")
        for name, model in MODELS.items()
        for title in model.SETTINGS
    ],
)
def test_no_interleaving_and_no_death_does_harm(model: ModuleType, title: str) -> None:
    assert found(model, title).wrong == {}


@pytest.mark.parametrize("name", MODELS)
def test_the_search_gets_around(name: str) -> None:
    model = MODELS[name]
    assert sum(found(model, title).n_states for title in model.SETTINGS) > N_STATES[name]


@pytest.mark.parametrize("name", MODELS)
def test_each_mutation_is_shown(name: str) -> None:
    assert set(MODELS[name].BROKEN) == set(MODELS[name].MUTATIONS)


@pytest.mark.parametrize(
    ("model", "setting"),
    [
        pytest.param(model, setting, id=f"{name}: {mutation}")
        for name, model in MODELS.items()
        for mutation, setting in broken(model.BROKEN).items()
    ],
)
def test_each_mutation_of_the_protocol_does_harm(model: ModuleType, setting: Any) -> None:
    assert setting.mutation
    assert model.search(setting).wrong


# What the end of an eventcount's park is for.


def test_a_killed_waiter_costs_others_a_wake_up_only_if_it_had_been_woken() -> None:
    assert set(found(eventcount, "waiters killed").explained) == {eventcount.LOST_BY_WAITER}


def test_a_killed_waker_costs_a_wake_up_only_between_its_change_and_its_wake() -> None:
    assert set(found(eventcount, "wakers killed").explained) == {eventcount.LOST_BY_WAKER}
