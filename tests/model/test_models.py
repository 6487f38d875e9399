"""The protocols of shared memory do no harm, whoever dies when, and the searches would notice."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import barrier
import eventcount
import heap_remote
import heap_runs
import in_flight
import lifetimes
import lock
import pipe
import pool_tasks
import process_lock
import pytest
from search import Result, broken

MODELS = {
    "barrier": barrier,
    "eventcount": eventcount,
    "heap": heap_remote,
    "heap runs": heap_runs,
    "in flight": in_flight,
    "lifetimes": lifetimes,
    "lock": lock,
    "pipe": pipe,
    "pool tasks": pool_tasks,
    "process lock": process_lock,
}

#: Fewer states in all would mean that a search does not get around.
N_STATES = {
    "barrier": 300_000,
    "eventcount": 160_000,
    "heap": 200_000,
    "heap runs": 150_000,
    "in flight": 150_000,
    "lifetimes": 150_000,
    "lock": 300_000,
    "pipe": 60_000,
    "pool tasks": 60_000,
    "process lock": 20_000,
}


class Found(NamedTuple):
    """What a search found, in short."""

    n_states: int
    wrong: set[str]
    explained: set[str]


Search = Callable[[str, str], Found]

#: Titles of settings and names of mutations, which are told apart by this.
MUTATED = "mutation: "


def setting_of(name: str, title: str) -> Any:
    model = MODELS[name]
    if title.startswith(MUTATED):
        return broken(model.BROKEN)[title.removeprefix(MUTATED)]
    return model.SETTINGS[title]


def run(name: str, title: str) -> Found:
    result: Result[Any] = MODELS[name].search(setting_of(name, title))
    return Found(result.n_states, set(result.wrong), set(result.explained))


@pytest.fixture(scope="session")
def search(request: pytest.FixtureRequest) -> Iterator[Search]:
    """Run a search by its model and title. Those of all chosen tests are begun at once."""
    begun: dict[tuple[str, str], Future[Found]] = {}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as executor:

        def find(name: str, title: str) -> Found:
            if (name, title) not in begun:
                begun[name, title] = executor.submit(run, name, title)
            return begun[name, title].result()

        for item in request.session.items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if "title" in parameters:
                key = parameters["name"], parameters["title"]
                begun[key] = executor.submit(run, *key)
        yield find
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        pytest.param(name, title, id=f"{name}: {title}")
        for name, model in MODELS.items()
        for title in model.SETTINGS
    ],
)
def test_no_interleaving_and_no_death_does_harm(search: Search, name: str, title: str) -> None:
    assert search(name, title).wrong == set()


@pytest.mark.parametrize("name", MODELS)
def test_the_search_gets_around(search: Search, name: str) -> None:
    settings = MODELS[name].SETTINGS
    assert sum(search(name, title).n_states for title in settings) > N_STATES[name]


@pytest.mark.parametrize("name", MODELS)
def test_each_mutation_is_shown(name: str) -> None:
    assert set(MODELS[name].BROKEN) == set(MODELS[name].MUTATIONS)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        pytest.param(name, MUTATED + mutation, id=f"{name}: {mutation}")
        for name, model in MODELS.items()
        for mutation in broken(model.BROKEN)
    ],
)
def test_each_mutation_of_the_protocol_does_harm(search: Search, name: str, title: str) -> None:
    assert setting_of(name, title).mutation
    assert search(name, title).wrong


# What the end of an eventcount's park is for.


def test_a_killed_waiter_costs_others_a_wake_up_only_if_it_had_been_woken(search: Search) -> None:
    assert search("eventcount", "waiters killed").explained == {eventcount.LOST_BY_WAITER}


def test_a_killed_waker_costs_a_wake_up_only_between_its_change_and_its_wake(
    search: Search,
) -> None:
    assert search("eventcount", "wakers killed").explained == {eventcount.LOST_BY_WAKER}
