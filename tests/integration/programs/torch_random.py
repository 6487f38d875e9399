"""torch's random numbers: no two children draw the same, unless they set a seed."""

import sys

import numpy as np
import torch
import torch.multiprocessing as mp


def draw(results):
    fresh = torch.rand(3).tolist(), np.random.random(3).tolist()
    torch.manual_seed(7)
    results.put((fresh, torch.rand(2).tolist()))


def main():
    results = mp.SimpleQueue()
    children = [mp.Process(target=draw, args=(results,)) for _ in range(5)]
    for child in children:
        child.start()
    answers = [results.get() for _ in children]
    for child in children:
        child.join()
    for number, name in enumerate(("torch", "numpy")):
        print(name, len({tuple(fresh[number]) for fresh, _ in answers}))
    print("with a seed", {tuple(seeded) for _, seeded in answers})


if __name__ == "__main__":
    if sys.argv[1:]:
        mp.set_start_method(sys.argv[1])
    main()
