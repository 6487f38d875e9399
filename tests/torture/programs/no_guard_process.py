"""A program without `if __name__ == "__main__"` waits for a Process"""

import multiprocessing


def work():
    pass


process = multiprocessing.Process(target=work)
process.start()
process.join()
if process.exitcode != 0:
    raise ChildProcessError(f"exit code {process.exitcode}")
print("done")
