"""A program without `if __name__ == "__main__"` makes a Pool"""

import multiprocessing

with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, range(3)))
