"""Threads start processes and end before them; others use pools and queues"""

import multiprocessing
import threading
import time


def answer_later(is_told, answers, number):
    is_told.wait()
    answers.put(number)


def start(is_told, answers, number):
    process = multiprocessing.Process(target=answer_later, args=(is_told, answers, number))
    process.start()
    processes.append(process)


def square(x):
    return x * x


def use_pool(results):
    with multiprocessing.Pool(2) as pool:
        results.append(sum(pool.map(square, range(100))))


if __name__ == "__main__":
    processes, results = [], []
    is_told, answers = multiprocessing.Event(), multiprocessing.Queue()
    starters = [threading.Thread(target=start, args=(is_told, answers, n)) for n in range(6)]
    users = [threading.Thread(target=use_pool, args=(results,)) for _ in range(3)]
    for thread in starters + users:
        thread.start()
    for thread in starters + users:
        thread.join()
    time.sleep(0.1)
    is_told.set()
    print(sorted(answers.get() for _ in starters), results)
    for process in processes:
        process.join()
    print({process.exitcode for process in processes})
