/*
 * The executable: command line -> seed -> node -> interpreter -> exit status.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "allocator.h"
#include "inspect/commands.h"
#include "interpreter.h"
#include "node/node.h"
#include "options.h"
#include "seed.h"
#include "title.h"

#define EXIT_USAGE 2

/* "Python 3.11.2 (dragon 0.1.0, mimalloc 2.0.9)": what asks a python for its version reads the
 * first two words. */
static int print_version(int detail)
{
    const char *python =
        detail > 1 ? dragon_interpreter_long_version() : dragon_interpreter_version();
    const char *allocator = dragon_allocator_version();
    printf("Python %s (dragon %s%s%s)\n", python, DRAGON_VERSION, allocator ? ", " : "",
           allocator ? allocator : "");
    return 0;
}

/* A child joins its node before anything else, so that it ends when the node's head does. All
 * others open one when it is first needed. A node that cannot open is no reason not to run a
 * program that may never use it: the first use of the runtime raises the error. */
static int plan_node(const struct dragon_options *options)
{
    const struct dragon_node_options node_options = {
        .attach_fd = options->attach_fd,
        .start_threads = true,
    };
    dragon_node_plan(&node_options);
    if (options->attach_fd < 0 || dragon_node_current()) {
        return 0;
    }
    /* Without its node a child would outlive everything that could end it. That the head has ended
     * meanwhile needs no message. */
    if (dragon_node_error() != -ESRCH) {
        fprintf(stderr, "dragon: cannot join the program that started this process: %s\n",
                strerror(-dragon_node_error()));
    }
    return -1;
}

static int run_python(const struct dragon_options *options)
{
    /* A fork server is no part of the node, or it would have threads; those whom it forks join. */
    if (options->has_runtime && !options->is_fork_server && plan_node(options) < 0) {
        return 1;
    }
    int status = dragon_interpreter_run(options);
    dragon_node_leave_threads_behind(); /* daemon threads outlive the interpreter */
    return status;
}

static int run(const struct dragon_options *options)
{
    switch (options->action) {
    case DRAGON_OPTIONS_VERSION:
        return print_version(options->version_detail);
    case DRAGON_OPTIONS_COMMAND:
        return dragon_command_find(options->argv[1])->run(options->argc, options->argv);
    case DRAGON_OPTIONS_HELP:
        dragon_options_print_help();
        return dragon_interpreter_run(options);
    case DRAGON_OPTIONS_RUN:
        break;
    }
    return run_python(options);
}

/* The standard library's resource tracker, as it executes it. It starts no processes; and who kills
 * it counts on its pipe having no reader then, which a seed would be until it has run. */
static bool is_resource_tracker(const struct dragon_options *options)
{
    static const char code[] = "from multiprocessing.resource_tracker import main;main(";
    char **end = options->argv + options->argc;
    return options->argc > 2 && !strcmp(end[-2], "-c") && !strncmp(end[-1], code, sizeof code - 1);
}

/* A program that runs may want to start processes. */
static bool wants_seed(const struct dragon_options *options)
{
    return options->action == DRAGON_OPTIONS_RUN && options->has_runtime &&
           !options->is_fork_server && !is_resource_tracker(options);
}

/* Read the command line; in a sprout of the seed, the one that it was given. */
static int prepare(struct dragon_options *options, int argc, char **argv)
{
    int r = dragon_options_parse(options, argc, argv);
    if (r == 0 && wants_seed(options) && dragon_seed_plant(&argc, &argv) == DRAGON_SEED_SPROUTED) {
        dragon_options_fini(options);
        r = dragon_options_parse(options, argc, argv);
    }
    return r;
}

int main(int argc, char **argv)
{
    struct dragon_options options;
    dragon_allocator_prepare();
    dragon_title_prepare(argc, argv);
    int r = prepare(&options, argc, argv);
    int status = 0;
    if (r == DRAGON_OPTIONS_INVALID) {
        fprintf(stderr, "dragon: %s\n", options.message);
        status = EXIT_USAGE;
    } else if (r < 0) {
        fputs("dragon: out of memory\n", stderr);
        status = 1;
    } else {
        status = run(&options);
    }
    dragon_options_fini(&options);
    return status;
}
