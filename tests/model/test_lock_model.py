"""The runtime's lock keeps its order and wedges nobody, and this search would notice."""

from __future__ import annotations

import importlib.util
import sys
import unittest
from pathlib import Path
from typing import Any


def _load_model() -> Any:
    """The model beside this file, which is no package."""
    path = Path(__file__).with_name("lock.py")
    spec = importlib.util.spec_from_file_location("dragon_lock_model", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


model = _load_model()


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
