"""The blueprint: the few lines that every program under dragon starts from.

Import dragon before multiprocessing, choose the start method "dragon", and use multiprocessing
as ever: here one process takes numbers apart and sends their prime factors through a queue.

Run it:             dragon 01_blueprint.py
With plain Python:  python3 01_blueprint.py --method spawn
"""

import argparse

parser = argparse.ArgumentParser(description="Factorise numbers in another process.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import multiprocessing as mp
from multiprocessing.queues import Queue

NUMBERS = [1001, 65_537, 600_851_475_143, 1_000_000_007, 2**50 - 1]


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a number in rising order, by trial division."""
    factors = []
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        else:
            divisor += 1
    return [*factors, number]


def factorise(numbers: list[int], results: "Queue[list[int]]") -> None:
    """Put the factors of each number into results, in the order of the numbers."""
    for number in numbers:
        results.put(prime_factors(number))


if __name__ == "__main__":
    mp.set_start_method(args.method)
    results: "Queue[list[int]]" = mp.Queue()
    worker = mp.Process(target=factorise, args=(NUMBERS, results))
    worker.start()
    for number in NUMBERS:
        print(number, "=", " * ".join(str(factor) for factor in results.get()))
    worker.join()
    print("the worker ended with exit status", worker.exitcode)
