"""dask: its scheduler of processes, with bags, delayed functions and frames."""

import multiprocessing
import operator
import os
import sys

import dask
import dask.array
import dask.bag
import numpy as np
from dask import delayed


def is_in_other_process(pid):
    return os.getpid() != pid


def failing(number):
    return 1 / (number - 3)


def main():
    numbers = dask.bag.from_sequence(range(1000), npartitions=6)
    print("bag", numbers.map(operator.neg).filter(lambda number: number % 7 == 0).sum().compute())
    print(
        "words",
        sorted(
            dask.bag.from_sequence(["a b", "b c", "c b"])
            .str.split()
            .flatten()
            .frequencies()
            .compute()
        ),
    )
    parts = [delayed(np.full)(30_000, float(number)) for number in range(6)]
    print("delayed", delayed(sum)([delayed(np.sum)(part) for part in parts]).compute())
    array = dask.array.from_array(np.arange(400_000.0).reshape(400, 1000), chunks=(100, 500))
    print("array", (array + array.mean(axis=0)).sum().compute(), array[::50, ::200].compute())
    print("processes", numbers.map(lambda n: is_in_other_process(PID)).all().compute())
    try:
        numbers.map(failing).sum().compute()
    except ZeroDivisionError as error:
        print("error", str(error).splitlines()[0])


if __name__ == "__main__":
    PID = os.getpid()
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    # dask asks for "spawn" by default.
    with dask.config.set(
        {
            "scheduler": "processes",
            "num_workers": 2,
            "multiprocessing.context": multiprocessing.get_start_method(),
        }
    ):
        main()
