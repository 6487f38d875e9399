"""An argument cannot be unpickled"""

import multiprocessing


class Fragile:
    def __reduce__(self):
        return int, ("no number",)


def work(x):
    return 1


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.map(work, [Fragile()]))
