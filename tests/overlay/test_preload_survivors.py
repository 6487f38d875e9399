"""Packages that start threads when imported and survive a fork: rules.SURVIVE_FORK, one by one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from overlay_support import Outcome
from preload_support import serve

from dragon_overlay.preload.rules import SURVIVE_FORK

#: What each package computes: a product of matrices of 300 x 300, by the BLAS that it uses.
PRODUCTS = {
    "numpy": "import numpy\na = numpy.ones((300, 300))\nproduct = lambda: float((a @ a).sum())",
    "pandas": (
        "import pandas\na = pandas.DataFrame([[1.0] * 300] * 300)\n"
        "product = lambda: float(a.dot(a).sum().sum())"
    ),
    "scipy": (
        "import scipy.linalg.blas, numpy\na = numpy.ones((300, 300))\n"
        "product = lambda: float(scipy.linalg.blas.dgemm(1.0, a, a).sum())"
    ),
}
#: Each element of the product of ones is 300.
EXPECTED = 300.0**3

#: Several children at once, between products in the server itself, twice.
FORKS = """
reports = preload.load([{name!r}])
assert reports[0].loaded, reports
{product}
def all_in_children(n):
    pids = []
    for _ in range(n):
        if (pid := os.fork()) == 0:
            os._exit(0 if [product() for _ in range(3)] == [{expected}] * 3 else 1)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]
told = []
for _ in range(2):
    told += [all_in_children(4), product()]
tell(told)
"""


def test_every_package_of_the_list_is_tested() -> None:
    assert set(PRODUCTS) == SURVIVE_FORK


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_forked_children_and_the_server_go_on_computing(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name)
    text = FORKS.format(name=name, product=PRODUCTS[name], expected=EXPECTED)
    # More threads than cores: the library starts them on any machine.
    told = serve(tmp_path, text, OPENBLAS_NUM_THREADS="4", OMP_NUM_THREADS="4")
    assert told == [[0] * 4, EXPECTED] * 2


#: The fork server waits for the import, but not for ever; a later child finds it done.
PROGRAM = """
import sys
was_loaded = {name!r} in sys.modules
{product}
import multiprocessing, time
def child(results):
    results.put((was_loaded, product()))
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    results = multiprocessing.Queue()
    deadline, was_loaded = time.monotonic() + 20, False
    while not was_loaded and time.monotonic() < deadline:
        process = multiprocessing.Process(target=child, args=(results,))
        process.start()
        was_loaded, answer = results.get()
        process.join()
    print(was_loaded, answer)
"""


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_children_of_a_program_that_imports_it_find_it_loaded(
    run: Callable[..., Outcome], name: str
) -> None:
    pytest.importorskip(name)
    text = PROGRAM.format(name=name, product=PRODUCTS[name])
    threads = {"OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    assert run(text, env=threads) == (f"True {EXPECTED}\n", "", 0)
