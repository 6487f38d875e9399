"""A worker dies in the library's ProcessPoolExecutor"""

import functools
import sys
from concurrent.futures import ProcessPoolExecutor

from deaths import die


def square(how, x):
    if x == 5:
        die(how)
    return x * x


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        print(list(executor.map(functools.partial(square, sys.argv[1]), range(20))))
