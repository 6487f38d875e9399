"""Processes are started, left alone, terminated and killed at random"""

import multiprocessing
import random
import sys
import time

N_ALIVE = 12


def work(seconds, reports):
    reports.put("begin")
    time.sleep(seconds)
    reports.put("end")


if __name__ == "__main__":
    seconds, limit, chance = float(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    end = time.monotonic() + seconds
    reports = multiprocessing.Queue()
    alive, n_started, n_left_alone = [], 0, 0
    while alive or (n_started < limit and time.monotonic() < end):
        if len(alive) < N_ALIVE and n_started < limit and time.monotonic() < end:
            process = multiprocessing.Process(
                target=work, args=(chance.random() * 0.05, reports), daemon=chance.random() < 0.5
            )
            process.start()
            n_started += 1
            alive.append(process)
            continue
        process = alive.pop(chance.randrange(len(alive)))
        how = chance.choice(["leave", "terminate", "kill"])
        if how != "leave":
            getattr(process, how)()
        process.join()
        if how == "leave":
            assert process.exitcode == 0, process
            n_left_alone += 1
    kinds = {"begin": 0, "end": 0}
    while not reports.empty():
        kinds[reports.get()] += 1
    assert n_started >= kinds["begin"] >= kinds["end"] >= n_left_alone, (kinds, n_started)
    print("all accounted for")
