"""The eventcount of the runtime loses no wake-up, and this search would notice if it did."""

from __future__ import annotations

import unittest

import eventcount as model


class TestEventcount(unittest.TestCase):
    def test_no_interleaving_with_time_outs_loses_a_wake_up(self) -> None:
        result = model.search(model.SETTINGS["as it is"])
        self.assertGreater(result.n_states, 50_000)
        self.assertEqual(result.stuck, [])

    def test_many_items_from_one_waker_reach_all_waiters(self) -> None:
        self.assertEqual(model.search(model.SETTINGS["one waker, three items"]).stuck, [])

    def test_a_killed_waiter_costs_others_a_wake_up_only_if_it_had_been_woken(self) -> None:
        result = model.search(model.SETTINGS["waiters killed"])
        self.assertEqual(result.stuck, [])
        self.assertTrue(result.stuck_by_waiter)  # what the end of the park is for

    def test_a_killed_waker_costs_a_wake_up_only_between_its_change_and_its_wake(self) -> None:
        result = model.search(model.SETTINGS["wakers killed"])
        self.assertEqual(result.stuck, [])
        self.assertTrue(result.stuck_by_waker)

    def test_each_mutation_of_the_protocol_loses_a_wake_up(self) -> None:
        for name, setting in model.BROKEN.items():
            with self.subTest(name):
                self.assertTrue(model.search(setting).stuck)


if __name__ == "__main__":
    unittest.main()
