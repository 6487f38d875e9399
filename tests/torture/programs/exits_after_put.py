"""A process leaves by os._exit right after a put"""

import multiprocessing
import os


def work(queue):
    queue.put("the answer")
    os._exit(0)


if __name__ == "__main__":
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    process.join()
    print(queue.get())
