"""Products that OpenBLAS computes with threads: in the main process, and in children at once."""

import multiprocessing
import sys
import threading

import numpy as np

SIZE = 600  # well above where OpenBLAS begins to use its threads


def product(number):
    matrix = np.full((SIZE, SIZE), float(number))
    return float((matrix @ matrix).sum())


def solution(number):
    matrix = np.eye(SIZE) * (number + 1)
    return float(np.linalg.solve(matrix, np.ones(SIZE)).sum())


def in_children_of_a_child(number):
    with multiprocessing.get_context().Pool(1) as pool:
        return pool.map(product, range(number))


def product_of_a_child(number, results):
    results.put((number, product(number), solution(number)))


def main():
    threads = [threading.Thread(target=product, args=(3,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    print("here", product(2), solution(2))
    with multiprocessing.Pool(2) as pool:
        print("pool", pool.map(product, range(8)))
        print("here meanwhile", product(2))
        print("pool", pool.map(solution, range(8)))
    for thread in threads:
        thread.join()

    results = multiprocessing.Queue()
    children = [
        multiprocessing.Process(target=product_of_a_child, args=(number, results))
        for number in range(4)
    ]
    for child in children:
        child.start()
    print("processes", sorted(results.get() for _ in children))
    for child in children:
        child.join()
    print("exit codes", [child.exitcode for child in children])

    nested = multiprocessing.Process(target=in_children_of_a_child, args=(3,))
    nested.start()
    nested.join()
    print("nested", nested.exitcode)


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
