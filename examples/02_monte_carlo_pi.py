"""Monte-Carlo estimate of pi: many independent tasks handed to a pool with Pool.map.

Each task throws points at a unit square and counts those inside the quarter circle. A task draws
from a generator of its own, seeded with the task's number, so the result does not depend on how
many workers there are or which of them takes which task.

Run it:             dragon 02_monte_carlo_pi.py
With plain Python:  python3 02_monte_carlo_pi.py --method spawn
"""

import argparse

parser = argparse.ArgumentParser(description="Estimate pi by throwing points at a square.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import multiprocessing as mp
import random

N_TASKS = 40
POINTS_PER_TASK = 100_000


def count_inside(seed: int) -> int:
    """Throw POINTS_PER_TASK points and return how many fall inside the quarter circle."""
    draw = random.Random(seed).random
    inside = 0
    for _ in range(POINTS_PER_TASK):
        x, y = draw(), draw()
        inside += x * x + y * y < 1.0
    return inside


if __name__ == "__main__":
    mp.set_start_method(args.method)
    with mp.Pool(4) as pool:
        inside = sum(pool.map(count_inside, range(N_TASKS)))
    points = N_TASKS * POINTS_PER_TASK
    print(f"{inside} of {points} points lie inside the quarter circle")
    print(f"pi is about {4 * inside / points:.4f}")
