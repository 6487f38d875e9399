"""A lambda is given to Pool.map"""

import multiprocessing

if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(lambda x: x + 1, range(3)))
