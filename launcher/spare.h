#pragma once

/*
 * Functions of _dragon_launch for the fork server (dragon_overlay/fork_server.py) and for those who
 * start processes through it. A file of Python's because what forks an interpreter must tell it.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* To be added to the module. */
extern PyMethodDef dragon_spare_methods[];
