"""A worker dies in Pool.apply"""

import multiprocessing
import sys

from deaths import die

if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.apply(die, (sys.argv[1],)))
