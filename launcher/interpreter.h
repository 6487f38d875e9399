#pragma once

/*
 * Python inside the executable: configure it as python3 configures itself, run the program.
 */

#include <stdbool.h>

struct dragon_options;

/* Start Python, run the program and stop Python. Returns the exit status of the process; for some
 * (help, a wrong option, Ctrl-C) it does not return. Once per process. */
int dragon_interpreter_run(const struct dragon_options *options);

/* "3.11.2". */
const char *dragon_interpreter_version(void);

/* "3.11.2 (main, <date>) [GCC 12.2.0]", as sys.version and python3 -VV show it. */
const char *dragon_interpreter_long_version(void);

/* The folder of the standard library that was fixed at build time. */
const char *dragon_interpreter_stdlib(void);
