"""A pool's worker makes a pool, whose worker makes a pool"""

import multiprocessing


def total(depth):
    if depth == 0:
        return 1
    with multiprocessing.Pool(2) as pool:
        return sum(pool.map(total, [depth - 1] * 2))


if __name__ == "__main__":
    print(total(3))
