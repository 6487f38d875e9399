/*
 * One pass over the words, in the order CPython's getopt takes them. A word is ours (long options),
 * Python's with or without a value, or the program. The first word that cannot be an option ends
 * the scan; so does the first one that Python will refuse, because Python then stops there too.
 */

#include "options.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/commands.h"

/* CPython's short options; those with a colon take a value (SHORT_OPTS of Python/getopt.c). */
static const char short_options[] = "+bBc:dEhiIJm:OPqRsStuvVW:xX:?";

static const char *const start_methods[] = {"dragon", "fork", "forkserver", "spawn", NULL};

/* The words still to be read. */
struct scan {
    struct dragon_options *options;
    char **words;
    int n_words;
    int next;
};

enum step {
    STEP_OPTION,  /* an option was read, go on */
    STEP_PROGRAM, /* the rest is the program and its arguments */
    STEP_PYTHON,  /* Python ends here by itself: help or an error */
};

__attribute__((format(printf, 2, 3))) static int invalid(struct dragon_options *options,
                                                         const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(options->message, sizeof options->message, format, arguments);
    va_end(arguments);
    return DRAGON_OPTIONS_INVALID;
}

static bool is_one_of(const char *const *names, const char *word)
{
    for (; *names; names++) {
        if (!strcmp(*names, word)) {
            return true;
        }
    }
    return false;
}

static void keep_for_python(struct dragon_options *options, char *word)
{
    options->argv[options->argc++] = word;
    options->argv[options->argc] = NULL;
}

static void keep_original(struct dragon_options *options, char *word)
{
    options->orig_argv[options->orig_argc++] = word;
}

static void keep(struct dragon_options *options, char *word)
{
    keep_for_python(options, word);
    keep_original(options, word);
}

static void keep_rest(struct scan *scan)
{
    while (scan->next < scan->n_words) {
        keep(scan->options, scan->words[scan->next++]);
    }
}

static int check_start_method(struct dragon_options *options, const char *name, const char *source)
{
    if (!is_one_of(start_methods, name)) {
        return invalid(options,
                       "%s: no start method '%s' (there are dragon, fork, forkserver, spawn)",
                       source, name);
    }
    options->start_method = name;
    return 0;
}

/* --start-method NAME and --start-method=NAME; value is what follows the '=', or NULL. */
static int read_start_method(struct scan *scan, char *word, const char *value)
{
    keep_original(scan->options, word);
    if (!value) {
        if (scan->next == scan->n_words) {
            return invalid(scan->options, "--start-method needs a name");
        }
        keep_original(scan->options, scan->words[scan->next]);
        value = scan->words[scan->next++];
    }
    return check_start_method(scan->options, value, "--start-method");
}

static int read_attach_fd(struct dragon_options *options, const char *value)
{
    char *end = NULL;
    long fd = value ? strtol(value, &end, 10) : -1;
    if (!value || end == value || *end || fd < 0 || fd > INT_MAX) {
        return invalid(options, "--attach-node needs the number of a descriptor");
    }
    options->attach_fd = (int)fd;
    return 0;
}

/* If word is --name or --name=value: true, and the value (NULL without one) in value_out. */
static bool is_long(const char *word, const char *name, const char **value_out)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0 || (word[length] && word[length] != '=')) {
        return false;
    }
    *value_out = word[length] ? word + length + 1 : NULL;
    return true;
}

/* Python's own long options. --check-hash-based-pycs takes the next word; the help variants end. */
static int read_python_long(struct scan *scan, char *word, enum step *step_out)
{
    if (!strcmp(word, "--check-hash-based-pycs")) {
        keep(scan->options, word);
        if (scan->next < scan->n_words) {
            keep(scan->options, scan->words[scan->next++]);
        }
        return 0;
    }
    if (!strncmp(word, "--help-", strlen("--help-"))) {
        keep(scan->options, word);
        *step_out = STEP_PYTHON;
        return 0;
    }
    return invalid(scan->options, "unknown option %s (dragon --help lists them)", word);
}

static int read_long(struct scan *scan, char *word, enum step *step_out)
{
    struct dragon_options *options = scan->options;
    const char *value = NULL;
    if (!strcmp(word, "--help")) {
        options->action = DRAGON_OPTIONS_HELP;
        keep(options, word);
        *step_out = STEP_PYTHON;
        return 0;
    }
    if (!strcmp(word, "--version")) {
        options->version_detail++;
        keep_original(options, word);
        return 0;
    }
    if (!strcmp(word, "--no-runtime")) {
        options->has_runtime = false;
        keep_original(options, word);
        return 0;
    }
    if (!strcmp(word, "--portable")) {
        options->is_portable = true;
        keep_original(options, word);
        return 0;
    }
    if (!strcmp(word, "--fork-server")) {
        options->is_fork_server = true;
        return 0;
    }
    if (is_long(word, "--start-method", &value)) {
        return read_start_method(scan, word, value);
    }
    if (is_long(word, "--attach-node", &value)) {
        return read_attach_fd(options, value);
    }
    return read_python_long(scan, word, step_out);
}

/* The value of a short option: the rest of its word or, if that is empty, the next word. */
static enum step read_short_value(struct scan *scan, const char *letter)
{
    const char *value = letter + 1;
    if (!*value && scan->next < scan->n_words) {
        value = scan->words[scan->next];
        keep(scan->options, scan->words[scan->next++]);
    }
    if (*letter == 'X' && !strcmp(value, "frozen_modules=off")) {
        scan->options->has_frozen_stdlib = false;
    }
    return *letter == 'c' || *letter == 'm' ? STEP_PROGRAM : STEP_OPTION;
}

/* Options of Python that concern us too. */
static void note_flag(struct dragon_options *options, char letter)
{
    if (letter == 'E' || letter == 'I') {
        options->reads_environment = false;
    }
    options->version_detail += letter == 'V';
}

/* A word of short options, such as -u, -Ic or -Wd. All of it goes to Python, except that a word
 * of nothing but V is ours. */
static enum step read_short(struct scan *scan, char *word)
{
    struct dragon_options *options = scan->options;
    if (strspn(word + 1, "V") == strlen(word + 1)) {
        options->version_detail += (int)strlen(word + 1);
        keep_original(options, word);
        return STEP_OPTION;
    }
    keep(options, word);
    for (const char *letter = word + 1; *letter; letter++) {
        const char *known = strchr(short_options, *letter);
        if (!known || strchr("+:J", *letter)) {
            return STEP_PYTHON;
        }
        if (*letter == 'h' || *letter == '?') {
            options->action = DRAGON_OPTIONS_HELP;
            return STEP_PYTHON;
        }
        if (known[1] == ':') {
            return read_short_value(scan, letter);
        }
        note_flag(options, *letter);
    }
    return STEP_OPTION;
}

/* Read one word. A command of ours is only what stands where a program's file would. */
static int read_word(struct scan *scan, enum step *step_out)
{
    char *word = scan->words[scan->next];
    *step_out = STEP_OPTION;
    if (word[0] != '-' || !word[1]) {
        if (dragon_command_find(word)) {
            scan->options->action = DRAGON_OPTIONS_COMMAND;
            scan->options->argc = 1;
        }
        *step_out = STEP_PROGRAM;
        return 0;
    }
    scan->next++;
    if (word[1] != '-') {
        *step_out = read_short(scan, word);
        return 0;
    }
    if (!word[2]) {
        keep(scan->options, word);
        *step_out = STEP_PROGRAM;
        return 0;
    }
    return read_long(scan, word, step_out);
}

static int read_words(struct scan *scan)
{
    enum step step = STEP_OPTION;
    keep(scan->options, scan->words[scan->next++]);
    while (step == STEP_OPTION && scan->next < scan->n_words) {
        int r = read_word(scan, &step);
        if (r) {
            return r;
        }
    }
    /* As python3: a version that was asked for before the program is all there is to do, unless
     * the same words hold an error or ask for help. */
    if (scan->options->version_detail && step != STEP_PYTHON) {
        scan->options->action = DRAGON_OPTIONS_VERSION;
    }
    keep_rest(scan);
    return 0;
}

/* The value of a variable; NULL if it is not set or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int read_portable_variable(struct dragon_options *options)
{
    const char *value = variable("DRAGON_PORTABLE");
    if (value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0) {
        return invalid(options, "DRAGON_PORTABLE: '%s' is neither 0 nor 1", value);
    }
    options->is_portable = options->is_portable || (value && *value == '1');
    return 0;
}

static int read_environment(struct dragon_options *options)
{
    const char *name = variable("DRAGON_START_METHOD");
    int r = read_portable_variable(options);
    if (r || options->start_method || !name) {
        return r;
    }
    return check_start_method(options, name, "DRAGON_START_METHOD");
}

int dragon_options_parse(struct dragon_options *options, int argc, char **argv)
{
    static char *no_words[] = {(char *)"", NULL};
    if (argc < 1) {
        argc = 1;
        argv = no_words;
    }
    *options = (struct dragon_options){
        .has_runtime = true,
        .reads_environment = true,
        .has_frozen_stdlib = true,
        .attach_fd = -1,
    };
    options->argv = calloc((size_t)argc + 1, sizeof *options->argv);
    options->orig_argv = calloc((size_t)argc + 1, sizeof *options->orig_argv);
    if (!options->argv || !options->orig_argv) {
        return -ENOMEM;
    }
    struct scan scan = {.options = options, .words = argv, .n_words = argc};
    int r = read_words(&scan);
    return r ? r : read_environment(options);
}

void dragon_options_fini(struct dragon_options *options)
{
    free(options->argv);
    free(options->orig_argv);
    options->argv = NULL;
    options->orig_argv = NULL;
}

void dragon_options_print_help(void)
{
    /* Few lines: with Python's own text they must stay below 50, which CPython's tests check. */
    fputs("usage: dragon [option] ... [-c cmd | -m mod | file | -] [arg] ...\n"
          "       dragon command         (a file of that name is run as ./command)\n"
          "--start-method NAME : default of multiprocessing: dragon, fork, forkserver or spawn;\n"
          "                      also DRAGON_START_METHOD\n"
          "--portable          : refuse what cannot work across machines; also DRAGON_PORTABLE=1\n"
          "--no-runtime        : open no node and start no runtime threads\n",
          stdout);
    for (const struct dragon_command *command = dragon_commands; command->name; command++) {
        printf("command %-12s: %s\n", command->name, command->summary);
    }
    fputs("Everything else is Python's:\n", stdout);
}
