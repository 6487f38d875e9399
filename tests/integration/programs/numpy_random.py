"""Random numbers: no two children draw the same ones, unless the program has given them a seed."""

import multiprocessing
import random
import sys

import numpy as np

SEEDED_BY_MAIN = np.random.default_rng(2024)


def draws(n):
    """From each generator that is seeded when it is imported or made."""
    return [
        tuple(np.random.random(n)),
        tuple(np.random.default_rng().random(n)),
        tuple(random.random() for _ in range(n)),
    ]


def seeded_draws(seed):
    np.random.seed(seed)
    random.seed(seed)
    generator = np.random.default_rng(seed)
    return np.random.random(2).tolist(), random.random(), generator.normal(size=2).tolist()


def send_draws(results):
    results.put((draws(3), SEEDED_BY_MAIN.random(3).tolist()))


def main():
    results = multiprocessing.Queue()
    children = [multiprocessing.Process(target=send_draws, args=(results,)) for _ in range(6)]
    for child in children:
        child.start()
    answers = [results.get() for _ in children]
    for child in children:
        child.join()
    for number, name in enumerate(("numpy.random", "default_rng", "random")):
        n_different = len({fresh[number] for fresh, _ in answers} | {draws(3)[number]})
        print(name, "drawn alike by none of", n_different)
    print("the program's own generator:", {tuple(own) for _, own in answers})
    with multiprocessing.Pool(2) as pool:
        print("with seeds", pool.map(seeded_draws, [1, 2, 1, 3]))


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
