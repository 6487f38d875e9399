"""joblib: Parallel with its backends, large arrays as memory maps, callbacks, errors, reuse."""

import math
import multiprocessing
import os
import sys

import numpy as np
from joblib import Parallel, delayed, parallel_backend


def total(array, factor):
    return type(array).__name__, float(array.sum()) * factor


def failing(number):
    if number == 3:
        raise ValueError(f"no {number} please")
    return number


def pid_after(number):
    return os.getpid()


def scaled(number, factor=2):
    return np.full(20000, float(number)) * factor


def main():
    with parallel_backend("multiprocessing"):
        print("roots", Parallel(n_jobs=2)(delayed(math.sqrt)(n**2) for n in range(10)))
        with Parallel(n_jobs=2) as parallel:  # one pool for all of these
            print("one by one", parallel(delayed(math.factorial)(n) for n in range(5)))
            arrays = parallel(delayed(scaled)(n, factor=3) for n in range(5))
            print("arrays", [float(array.sum()) for array in arrays])
            large = np.ones(300_000)  # more than 1 MB: in a file that the workers map
            print("large", parallel(delayed(total)(large, factor) for factor in range(4)))
            pids = set(parallel(delayed(pid_after)(n) for n in range(20)))
            print("in others", os.getpid() not in pids, len(pids) <= 2)
        try:
            Parallel(n_jobs=2)(delayed(failing)(n) for n in range(6))
        except ValueError as error:
            print("error", error)
        in_batches = Parallel(n_jobs=2, batch_size=4, pre_dispatch="2*n_jobs")
        print("batches", in_batches(delayed(abs)(-n) for n in range(50)))
        print("nested", Parallel(n_jobs=2)(delayed(nested)(n) for n in range(3)))
    with parallel_backend("loky"):  # its processes are its own, and execute sys.executable
        print("loky", Parallel(n_jobs=2)(delayed(total)(large, factor) for factor in range(4)))
        print("loky", Parallel(n_jobs=2)(delayed(nested)(n) for n in range(3)))


def nested(number):
    return Parallel(n_jobs=2)(delayed(abs)(-value) for value in range(number))


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
