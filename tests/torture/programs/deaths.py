"""Ways in which a worker dies; imported by the programs beside this one."""

import ctypes
import os
import signal


def die(how):
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "SIGSEGV":
        ctypes.string_at(0)
    else:
        os._exit(1)
