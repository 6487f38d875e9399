"""The runtime's lock keeps its order and wedges nobody, and this search would notice."""

from __future__ import annotations

import unittest

import lock as model


class TestLock(unittest.TestCase):
    def test_nobody_is_overtaken_forgotten_or_shut_out_whoever_dies_or_gives_up(self) -> None:
        for name, setting in model.SETTINGS.items():
            with self.subTest(name):
                result = model.search(setting)
                self.assertGreater(result.n_states, 20_000)
                self.assertEqual(result.overtaken, [])
                self.assertEqual(result.lost, [])
                self.assertEqual(result.wedged, [])

    def test_each_mutation_of_the_protocol_is_found(self) -> None:
        for name, setting in model.BROKEN.items():
            with self.subTest(name):
                self.assertFalse(model.search(setting).is_clean())


if __name__ == "__main__":
    unittest.main()
