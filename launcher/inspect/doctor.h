#pragma once

/*
 * `dragon doctor`: how this executable is built, and whether this machine has what it needs.
 */

/* Print the report on stdout. Takes no arguments beyond the command.
 * Exit status: 0 programs can run, perhaps more slowly than they could; 1 something that all need
 * does not work; 2 wrong arguments. */
int dragon_doctor_run(int argc, char **argv);
