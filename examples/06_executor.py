"""A concurrent.futures executor whose workers are started by dragon: a segmented prime sieve.

ProcessPoolExecutor takes the context of a start method, so nothing else in the program changes.
Each future counts the primes in one segment; the counts are added up as the futures complete.

Run it:             dragon 06_executor.py
With plain Python:  python3 06_executor.py --method spawn
"""

import argparse

parser = argparse.ArgumentParser(description="Count primes with an executor.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import math
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor, as_completed

LIMIT = 20_000_000
SEGMENT = 1_000_000


def small_primes(limit: int) -> list[int]:
    """Return the primes up to limit, by trial division."""
    primes: list[int] = []
    for number in range(2, limit + 1):
        if all(number % prime for prime in primes if prime * prime <= number):
            primes.append(number)
    return primes


def count_primes(start: int, stop: int) -> int:
    """Return how many primes p there are with start <= p < stop, where start >= 2."""
    is_prime = bytearray(b"\x01") * (stop - start)
    for prime in small_primes(math.isqrt(stop - 1)):
        first = max(prime * prime, -(-start // prime) * prime)
        n_multiples = len(range(first, stop, prime))
        is_prime[first - start :: prime] = bytes(n_multiples)
    return sum(is_prime)


if __name__ == "__main__":
    context = mp.get_context(args.method)
    with ProcessPoolExecutor(max_workers=2, mp_context=context) as executor:
        futures = [
            executor.submit(count_primes, max(start, 2), start + SEGMENT)
            for start in range(0, LIMIT, SEGMENT)
        ]
        total = sum(future.result() for future in as_completed(futures))
        first_segment = futures[0].result()
    print(f"{first_segment} primes below {SEGMENT}")
    print(f"{total} primes below {LIMIT}")
