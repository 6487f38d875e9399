"""The server of a Manager is killed while its dict is used"""

import multiprocessing
import os
import signal

if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        numbers = manager.dict(a=1)
        os.kill(manager._process.pid, signal.SIGKILL)
        try:
            for _ in range(3):
                print(numbers["a"])
        except (EOFError, OSError):
            print("the manager is gone")
