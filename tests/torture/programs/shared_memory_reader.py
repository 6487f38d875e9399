"""Another program attaches to shared memory, reads it and exits; its owner goes on"""

import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

READER = """
import sys
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(sys.argv[1])
print(bytes(memory.buf[:5]).decode(), flush=True)
memory.close()
"""

if __name__ == "__main__":
    memory = SharedMemory(create=True, size=100)
    memory.buf[:5] = b"hello"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", READER, memory.name], check=True)
    memory.close()
    memory.unlink()
