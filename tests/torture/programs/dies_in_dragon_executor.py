"""A worker dies in dragon.futures.ProcessPoolExecutor; all futures are asked"""

import sys

from deaths import die

from dragon.futures import ProcessPoolExecutor


def square(how, x):
    if x == 2:
        die(how)
    return x * x


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        for future in [executor.submit(square, sys.argv[1], x) for x in range(5)]:
            print(type(future.exception()).__name__ if future.exception() else future.result())
