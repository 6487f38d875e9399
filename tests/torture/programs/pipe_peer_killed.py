"""The process at the other end of a Pipe is killed while its answer is waited for"""

import multiprocessing
import os
import signal


def work(connection):
    connection.recv()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=work, args=(theirs,))
    process.start()
    theirs.close()
    ours.send("a question")
    print(ours.recv())
