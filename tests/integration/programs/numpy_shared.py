"""numpy over memory that processes share: Array, RawArray, Value, SharedMemory and its manager."""

import ctypes
import multiprocessing
import sys
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import ShareableList, SharedMemory

import numpy as np

ROWS, COLUMNS = 50, 300


def rows_of(shared):
    """A view of an Array or RawArray."""
    buffer = shared.get_obj() if hasattr(shared, "get_obj") else shared
    return np.frombuffer(buffer, dtype=np.float64).reshape(ROWS, COLUMNS)


def add_to_rows(shared, number, counter):
    view = rows_of(shared)
    for row in range(number, ROWS, 4):
        view[row] += number + 1
    with counter.get_lock():
        counter.value += 1


def add_under_lock(array, n):
    for _ in range(n):
        with array.get_lock():
            rows_of(array)[:] += 1


#: In the workers of a pool: what the initializer got.
shared = {}


def keep(array):
    shared["array"] = array


def row_sum(row):
    return float(rows_of(shared["array"])[row].sum())


def square(name, shape):
    memory = SharedMemory(name)
    view = np.ndarray(shape, dtype=np.int64, buffer=memory.buf)
    np.square(view, out=view)
    del view
    memory.close()


def total_of(memory, n):
    return int(np.frombuffer(memory.buf, dtype=np.int64, count=n).sum())


def started(target, *groups):
    children = [multiprocessing.Process(target=target, args=args) for args in groups]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]


def main():
    for make in (multiprocessing.Array, multiprocessing.RawArray):
        array, counter = make(ctypes.c_double, ROWS * COLUMNS), multiprocessing.Value("i", 0)
        codes = started(add_to_rows, *((array, number, counter) for number in range(4)))
        print(make.__name__, codes, counter.value, rows_of(array).sum(axis=1))

    array = multiprocessing.Array("d", ROWS * COLUMNS)
    print("under lock", started(add_under_lock, (array, 50), (array, 50)), rows_of(array)[::20, :3])
    with multiprocessing.Pool(2, keep, (array,)) as pool:
        print("pool", pool.map(row_sum, range(5)))
        rows_of(array)[:] = 2
        print("pool", pool.map(row_sum, range(5)))

    numbers = np.arange(100_000).reshape(1000, 100)
    memory = SharedMemory(create=True, size=numbers.nbytes)
    view = np.ndarray(numbers.shape, dtype=numbers.dtype, buffer=memory.buf)
    view[:] = numbers
    print("by name", started(square, (memory.name, numbers.shape)), (view == numbers**2).all())
    with multiprocessing.Pool(1) as pool:
        print(
            "as argument", pool.apply(total_of, (memory, 1000)) == (numbers.flat[:1000] ** 2).sum()
        )
    del view
    memory.close()
    memory.unlink()

    with SharedMemoryManager() as manager:
        memory = manager.SharedMemory(8000)
        np.frombuffer(memory.buf, dtype=np.int64)[:] = 3
        with multiprocessing.Pool(2) as pool:
            print("managed", pool.apply(total_of, (memory, 1000)))
            print("list", pool.apply(summed, (manager.ShareableList([1, 2.5, "three"]),)))


def summed(values: ShareableList):
    return values[0] + values[1], values[2]


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
