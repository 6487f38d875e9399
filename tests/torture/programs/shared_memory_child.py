"""Children attach to shared memory, read it and exit or are killed; their parent goes on"""

import multiprocessing
import os
import signal
from multiprocessing.shared_memory import SharedMemory


def read(name, is_killed):
    memory = SharedMemory(name)
    print(bytes(memory.buf[:5]).decode(), flush=True)
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)
    memory.close()


if __name__ == "__main__":
    memory = SharedMemory(create=True, size=100)
    memory.buf[:5] = b"hello"
    for is_killed in (False, True, False):
        process = multiprocessing.Process(target=read, args=(memory.name, is_killed))
        process.start()
        process.join()
    memory.close()
    memory.unlink()
