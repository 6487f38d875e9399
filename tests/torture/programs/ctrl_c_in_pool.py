"""Ctrl-C while Pools are made"""

import multiprocessing

if __name__ == "__main__":
    pools = []
    while True:
        pools.append(multiprocessing.Pool(2))
        print("ready", flush=True)
        if len(pools) > 3:
            pools.pop(0).terminate()
