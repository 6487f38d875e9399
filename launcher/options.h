#pragma once

/*
 * dragon's own command line: what stands before the program, and the DRAGON_* variables.
 *
 * Everything python3 accepts stays as it is. The options of both may be mixed, so the scan follows
 * CPython's getopt (Python/getopt.c) closely enough to know which word is the program; from there
 * on every word belongs to the program. What Python understands is handed to Python unchanged,
 * mistakes included: its own message is the right one.
 */

#include <stdbool.h>

enum {
    DRAGON_OPTIONS_INVALID = 1, /* dragon_options_parse: the text is in `message` */
};

enum dragon_options_action {
    DRAGON_OPTIONS_RUN,     /* start Python with `argv` */
    DRAGON_OPTIONS_HELP,    /* print our help, then start Python, which prints its own */
    DRAGON_OPTIONS_VERSION, /* print the version, in detail if `version_detail` > 1 */
    DRAGON_OPTIONS_COMMAND, /* run dragon's own command argv[1] */
};

struct dragon_options {
    enum dragon_options_action action;
    int version_detail;       /* how many -V were given */
    const char *start_method; /* default start method of multiprocessing; NULL = the stdlib's */
    bool is_portable;         /* --portable: refuse what cannot work across machines */
    bool has_runtime;         /* false: --no-runtime */
    bool reads_environment;   /* false: -E or -I, Python ignores its variables */
    bool has_frozen_stdlib;   /* false: -X frozen_modules=off */
    bool is_fork_server;      /* --fork-server: a process of ours that only makes others */
    int attach_fd;            /* memfd of the node to join; -1 = open a new one */
    int argc;                 /* words for Python, or [dragon, command, arguments] */
    char **argv;              /* owned, ends with NULL; the words are those of main() */
    int orig_argc;            /* sys.orig_argv: the same with our visible options */
    char **orig_argv;
    char message[256]; /* one line, without a newline; set on DRAGON_OPTIONS_INVALID */
};

/* Read the command line and the environment. argv is borrowed and must outlive the options.
 * 0; DRAGON_OPTIONS_INVALID; -ENOMEM. In every case dragon_options_fini() may follow. */
int dragon_options_parse(struct dragon_options *options, int argc, char **argv);

/* Free what parse allocated. */
void dragon_options_fini(struct dragon_options *options);

/* Print the part of --help that is about dragon. Python's own text follows it. */
void dragon_options_print_help(void);
