"""A process puts 100 MB into a Queue; it is joined before the Queue is read"""

import multiprocessing


def produce(queue):
    queue.put(bytes(100_000_000))


if __name__ == "__main__":
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=produce, args=(queue,))
    process.start()
    process.join()
    print(len(queue.get()))
