"""Packages that start threads when imported and survive a fork: rules.SURVIVE_FORK, one by one."""

from pathlib import Path

import pytest
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
