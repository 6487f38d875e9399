#pragma once

/*
 * Where this executable is, and the virtual environment it stands for.
 */

#include <limits.h>
#include <stdbool.h>

struct dragon_self {
    char real[PATH_MAX];        /* the file itself, all symbolic links followed */
    char path[PATH_MAX];        /* the name it was called by, made absolute; sys.executable */
    char venv_python[PATH_MAX]; /* python3 of the active VIRTUAL_ENV; "" when none applies */
    bool is_in_venv;            /* a pyvenv.cfg lies beside `path` or one folder up */
};

/* Find out from argv[0], PATH and VIRTUAL_ENV. Never fails: what cannot be found out is the empty
 * string. argv0 is only believed if it leads to the running file. */
void dragon_self_locate(struct dragon_self *self, const char *argv0);
