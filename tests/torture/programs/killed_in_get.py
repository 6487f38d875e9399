"""A process is killed while it waits in a get; another one gets"""

import multiprocessing
import time


def get(queue, answers):
    answers.put("about to get")
    answers.put(queue.get())


if __name__ == "__main__":
    queue, answers = multiprocessing.Queue(), multiprocessing.Queue()
    first = multiprocessing.Process(target=get, args=(queue, answers))
    first.start()
    answers.get()
    time.sleep(0.2)
    first.kill()
    first.join()
    second = multiprocessing.Process(target=get, args=(queue, answers))
    second.start()
    queue.put("an item")
    answers.get()
    print(answers.get())
    second.join()
