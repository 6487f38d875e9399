#pragma once

/*
 * dragon's own commands: `dragon doctor` and those to come.
 */

struct dragon_command {
    const char *name;
    const char *summary; /* for --help, one line */

    /* argv[0] is the executable, argv[1] the name of the command. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

/* All commands; the last entry has no name. */
extern const struct dragon_command dragon_commands[];

/* The command of that name, or NULL. */
const struct dragon_command *dragon_command_find(const char *name);
