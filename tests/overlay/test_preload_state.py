"""Children of a server with preloaded modules differ from each other where spawned ones would."""

import itertools
from pathlib import Path

import pytest
from preload_support import serve, write_tree

N_CHILDREN = 4

#: Each child's draws, and the server's.
DRAWS = """
preload.load({names})
tell([forked(draw) for _ in range({n})] + [draw()])
"""


def draws(folder: Path, names: list[str], draw: str) -> list[object]:
    drawn: list[object] = serve(folder, draw + DRAWS.format(names=names, n=N_CHILDREN))
    assert len(drawn) == N_CHILDREN + 1
    return drawn


def all_different(values: list[object]) -> bool:
    return all(one != other for one, other in itertools.combinations(values, 2))


def test_no_two_children_draw_the_same_from_random(tmp_path: Path) -> None:
    draw = """
def draw():
    import random
    return [random.random(), random.getrandbits(64)]
"""
    assert all_different(draws(tmp_path, ["random"], draw))


def test_no_two_children_draw_the_same_from_numpy(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    draw = """
def draw():
    import numpy
    return numpy.random.rand()
"""
    assert all_different(draws(tmp_path, ["numpy"], draw))


@pytest.mark.parametrize(
    "make",
    [
        "import random; generator = random.Random(); draw = generator.random",
        "from random import Random\nclass Own(Random): pass\ng = Own(); draw = g.random",
        "import numpy; generator = numpy.random.RandomState(); draw = generator.rand",
        "import numpy; generator = numpy.random.default_rng(); draw = generator.random",
        "from numpy.random import RandomState, PCG64\n"
        "generator = RandomState(PCG64()); draw = generator.rand",
    ],
)
def test_a_generator_that_a_module_made_is_renewed(tmp_path: Path, make: str) -> None:
    if "numpy" in make:
        pytest.importorskip("numpy")
    write_tree(tmp_path, {"site-packages/lib.py": make})
    assert all_different(
        draws(tmp_path, ["lib"], "def draw():\n    import lib\n    return lib.draw()")
    )


@pytest.mark.parametrize(
    "make",
    [
        "import random; generator = random.Random(7); draw = generator.random",
        "import numpy; generator = numpy.random.RandomState(7); draw = generator.rand",
        "import numpy; generator = numpy.random.default_rng(7); draw = generator.random",
    ],
)
def test_a_generator_that_a_module_seeded_draws_what_it_always_draws(
    tmp_path: Path, make: str
) -> None:
    if "numpy" in make:
        pytest.importorskip("numpy")
    write_tree(tmp_path, {"site-packages/lib.py": make})
    drawn = draws(tmp_path, ["lib"], "def draw():\n    import lib\n    return lib.draw()")
    assert drawn == [drawn[0]] * len(drawn)


def test_a_generator_that_was_there_before_is_renewed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"site-packages/lib.py": "import random; draw = random.Random().random"})
    write_tree(tmp_path, {"site-packages/kept.py": "import random; generator = random.Random()"})
    draw = "import kept\ndef draw():\n    return kept.generator.random()\n"
    assert all_different(draws(tmp_path, ["lib"], draw))


def test_a_second_load_leaves_seeded_generators_of_the_first_alone(tmp_path: Path) -> None:
    make = "import random; generator = random.Random(7)"
    write_tree(tmp_path, {"site-packages/lib.py": make, "site-packages/other.py": ""})
    draw = """
preload.load(["lib"])
def draw():
    import lib
    return lib.generator.random()
"""
    drawn = draws(tmp_path, ["other"], draw)
    assert drawn == [drawn[0]] * len(drawn)


# Not the real one: what is used of torch is this much of its documented interface.
TORCH = """
import random
class Generator:
    def __init__(self):
        self.seed()
    def seed(self):
        self._seed = random.SystemRandom().getrandbits(63)
        return self._seed
    def initial_seed(self):
        return self._seed
default_generator = Generator()
"""


def test_torchs_generator_is_renewed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"site-packages/torch.py": TORCH})
    draw = "def draw():\n    import torch\n    return torch.default_generator.initial_seed()"
    assert all_different(draws(tmp_path, ["torch"], draw))


AT_ONCE = """
saved = os.dup(1)  # standard output leads elsewhere once it has failed
try:
    preload.load_at_once(["lib"])
except preload.SpoiledError as error:
    os.write(saved, f'"{error}"'.encode())
else:
    tell([forked(lambda: sys.modules["lib"].draw()) for _ in range(4)])
"""


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("from torch import default_generator as own\ndraw = own.initial_seed", "torch"),
        ("from numpy.random import rand as draw, mtrand\nown = mtrand._rand", "numpy"),
    ],
)
def test_generators_that_are_seeded_by_chance_need_no_trial(
    tmp_path: Path, source: str, package: str
) -> None:
    if package == "torch":
        write_tree(tmp_path, {"site-packages/torch.py": TORCH})
    else:
        pytest.importorskip(package)
    write_tree(tmp_path, {"site-packages/lib.py": source})
    assert all_different(serve(tmp_path, AT_ONCE))


def test_a_generator_of_which_nothing_is_known_needs_a_trial(tmp_path: Path) -> None:
    source = "import random, torch\nown = random.Random()"
    write_tree(tmp_path, {"site-packages/lib.py": source, "site-packages/torch.py": TORCH})
    assert serve(tmp_path, AT_ONCE) == "it has a random generator"


def test_objects_that_act_when_looked_at_are_not_woken(tmp_path: Path) -> None:
    source = """
class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("woken")
lazy = Lazy()
"""
    write_tree(tmp_path, {"site-packages/lib.py": source})
    assert serve(tmp_path, "tell(preload.load(['lib'])[0].loaded)") is True


def test_logging_counts_from_the_childs_start(tmp_path: Path) -> None:
    text = """
preload.load(["logging"])
import logging
logging._startTime -= 1000 if isinstance(logging._startTime, float) else 1000 * 10**9
def child():
    return logging.LogRecord("", 0, "", 0, "", (), None).relativeCreated
tell(forked(child))
"""
    assert 0 <= serve(tmp_path, text) < 100_000  # ms


def test_it_costs_nothing_where_nothing_is_to_be_renewed(tmp_path: Path) -> None:
    text = """
import timeit
preload.load(["json"])
sys.modules.pop("logging", None)
tell(min(timeit.repeat(preload.after_fork, number=1000, repeat=20)) / 1000)
"""
    assert serve(tmp_path, text) < 2e-6
