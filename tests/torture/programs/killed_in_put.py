"""A process is killed in the middle of a put; another one puts, and the Queue is read"""

import multiprocessing
import time


def put_much(queue, is_there):
    for _ in range(8):
        queue.put(bytes(4_000_000))
        is_there.set()
    time.sleep(60)


def put_more(queue):
    queue.put("more")


if __name__ == "__main__":
    queue, is_there = multiprocessing.Queue(), multiprocessing.Event()
    first = multiprocessing.Process(target=put_much, args=(queue, is_there))
    first.start()
    is_there.wait()
    time.sleep(0.2)
    first.kill()
    first.join()
    second = multiprocessing.Process(target=put_more, args=(queue,))
    second.start()
    while (item := queue.get()) != "more":
        assert len(item) == 4_000_000
    print(item)
    second.join()
