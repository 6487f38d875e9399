"""Parallel merge sort of three million numbers: processes that start processes.

Each process gives the left half of its numbers to a child, sorts the right half itself and merges
the two; the children do the same until the tree is DEPTH levels deep. Large lists travel both
ways: down as an argument of the process, up through a queue.

Run it:             dragon 03_merge_sort.py
With plain Python:  python3 03_merge_sort.py --method spawn
"""

import argparse

parser = argparse.ArgumentParser(description="Sort numbers with a tree of processes.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import multiprocessing as mp
import operator
import random
import zlib
from array import array
from multiprocessing.queues import SimpleQueue

COUNT = 3_000_000
DEPTH = 2  # four processes sort a quarter each: the program itself and three others


def merge(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists: list.sort() recognises both runs and takes linear time."""
    merged = left + right
    merged.sort()
    return merged


def merge_sort(numbers: list[int], depth: int) -> list[int]:
    """Return the numbers sorted, with the help of 2**depth - 1 other processes."""
    if depth == 0:
        return sorted(numbers)
    middle = len(numbers) // 2
    reply: SimpleQueue[list[int]] = mp.SimpleQueue()
    child = mp.Process(target=sort_and_send, args=(numbers[:middle], depth - 1, reply))
    child.start()
    right = merge_sort(numbers[middle:], depth - 1)
    left = reply.get()
    child.join()
    return merge(left, right)


def sort_and_send(numbers: list[int], depth: int, reply: "SimpleQueue[list[int]]") -> None:
    """What a child does: sort its share and send it to the process that started it."""
    reply.put(merge_sort(numbers, depth))


if __name__ == "__main__":
    mp.set_start_method(args.method)
    numbers = array("I", random.Random(2024).randbytes(4 * COUNT)).tolist()
    result = merge_sort(numbers, DEPTH)
    in_order = all(map(operator.le, result, result[1:]))
    print(f"{len(result)} numbers, in order: {in_order}")
    print(f"smallest {result[0]}, median {result[COUNT // 2]}, largest {result[-1]}")
    print(f"checksum {zlib.crc32(array('I', result)):08x}")
