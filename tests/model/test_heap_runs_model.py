"""Runs of the heap change hands without its lock and do no harm, and this search would notice."""

from __future__ import annotations

import unittest

import heap_runs as model


class TestHeapRuns(unittest.TestCase):
    def test_no_interleaving_and_no_death_does_harm(self) -> None:
        for name, setting in model.SETTINGS.items():
            with self.subTest(name):
                self.assertEqual(model.search(setting).wrong, {})

    def test_the_search_gets_around(self) -> None:
        n_states = sum(model.search(setting).n_states for setting in model.SETTINGS.values())
        self.assertGreater(n_states, 150_000)

    def test_each_mutation_is_shown(self) -> None:
        self.assertEqual(set(model.BROKEN), set(model.MUTATIONS))

    def test_each_mutation_of_the_protocol_does_harm(self) -> None:
        for name in model.BROKEN:
            with self.subTest(name):
                self.assertTrue(model.search(model.broken(name)).wrong)


if __name__ == "__main__":
    unittest.main()
