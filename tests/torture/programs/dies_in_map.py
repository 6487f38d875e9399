"""A worker dies in Pool.map"""

import functools
import multiprocessing
import sys

from deaths import die


def square(how, x):
    if x == 5:
        die(how)
    return x * x


if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(functools.partial(square, sys.argv[1]), range(20)))
