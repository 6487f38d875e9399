#pragma once

/*
 * The Python modules that the executable carries, and the built-in module `_dragon_launch` through
 * which Python code sees them and the launcher's options.
 *
 * The tables are made by stdlib_overlay/boot/freeze.py at build time and are read-only data.
 */

#include <stdbool.h>
#include <stddef.h>

struct dragon_options;

struct dragon_overlay_module {
    const char *name; /* "dragon_overlay.queues"; the tables are sorted by it (strcmp) */
    const char *path; /* "dragon_overlay/queues.py" */
    bool is_package;
    const unsigned char *source; /* NULL in the table of frozen modules */
    size_t source_size_bytes;
    const unsigned char *code; /* marshalled, made by the Python that is linked in */
    size_t code_size_bytes;
};

/* Modules found by the finder of _dragon_boot. */
extern const struct dragon_overlay_module dragon_overlay_modules[];
extern const size_t dragon_overlay_n_modules;

/* Modules that Python takes as frozen: _dragon_boot, and those of the standard library that every
 * start needs and the interpreter library does not have frozen. */
extern const struct dragon_overlay_module dragon_overlay_frozen[];
extern const size_t dragon_overlay_n_frozen;

/* Make `_dragon_launch` and `_dragon` importable. Before Python starts; options are borrowed for as
 * long as Python runs. 0; -ENOMEM. */
int dragon_overlay_register(const struct dragon_options *options);
