"""A worker dies in Pool.imap; the other results are asked for"""

import functools
import multiprocessing
import sys

from deaths import die


def square(how, x):
    if x == 2:
        die(how)
    return x * x


if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        results = pool.imap(functools.partial(square, sys.argv[1]), range(5))
        for _ in range(5):
            try:
                print(next(results))
            except Exception as error:
                print(type(error).__name__)
