"""A call raises what is no Exception"""

import multiprocessing
import sys


class Stop(BaseException):
    pass


def work(kind):
    raise {"Stop": Stop, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[kind]


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.apply(work, (sys.argv[1],)))
