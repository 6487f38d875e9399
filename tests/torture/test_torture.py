"""Every program of the torture suite ends as `pains.py` says, and leaves nothing.

The executable is $DRAGON_EXE, by default build/dragon.
"""

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pains import PAINS, Pain
from running import dragon, run
from storm import Storm

DRAGON = Path(os.environ.get("DRAGON_EXE", Path(__file__).parents[2] / "build" / "dragon"))
N_ROUNDS = 8


@pytest.mark.slow
@pytest.mark.parametrize("pain", PAINS, ids=[pain.label for pain in PAINS])
def test_a_program_ends_as_it_must_and_leaves_nothing(pain: Pain) -> None:
    ending = run(pain, dragon(str(DRAGON.absolute())))
    assert str(ending) == pain.end, ending.stderr


@pytest.mark.slow
def test_a_program_whose_members_are_killed_ends_and_leaves_nothing() -> None:
    number = random.randrange(1 << 30)
    print("seed", number)
    storm = Storm(dragon(str(DRAGON.absolute())), number)
    for _ in range(N_ROUNDS):
        storm.round()
    assert not storm.faults, storm.faults
