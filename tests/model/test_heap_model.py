"""The words of the heap lose no block and hand none out twice, and this search would notice."""

from __future__ import annotations

import unittest

import heap_remote as model


class TestHeap(unittest.TestCase):
    def test_no_interleaving_and_no_death_does_harm(self) -> None:
        for name, setting in model.SETTINGS.items():
            with self.subTest(name):
                self.assertEqual(model.search(setting).wrong, {})

    def test_the_search_gets_around(self) -> None:
        n_states = sum(model.search(setting).n_states for setting in model.SETTINGS.values())
        self.assertGreater(n_states, 200_000)

    def test_each_mutation_is_shown(self) -> None:
        self.assertEqual(set(model.BROKEN), set(model.MUTATIONS))

    def test_each_mutation_of_the_protocol_does_harm(self) -> None:
        for name in model.BROKEN:
            with self.subTest(name):
                self.assertTrue(model.search(model.broken(name)).wrong)


if __name__ == "__main__":
    unittest.main()
