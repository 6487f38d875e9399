#pragma once

/*
 * The error idiom of the runtime.
 *
 * Functions that can fail return an int:
 *   0      done;
 *   < 0    a negative errno value. Unexpected: forwarded unchanged by whoever
 *          cannot handle it, never matched on when it came from our own code;
 *   > 0    an outcome, from the enum of that module (DRAGON_CHANNEL_FULL, ...).
 *          Part of the function's contract: its direct caller handles it and
 *          never forwards it.
 *
 * A new error starts at dragon_error_origin(-ENOMEM), and is passed on through
 * dragon_error_trace(r). Both keep file and line in per-thread fixed storage
 * (no allocation) and cost one branch on success, so that the path of an
 * unexpected error can be printed where it surfaces.
 */

#include <stdbool.h>
#include <stddef.h>

#define dragon_error_origin(r) dragon_error_originate((r), __FILE__, __LINE__)
#define dragon_error_trace(r) dragon_error_fold((r), __FILE__, __LINE__)

/* Note a place that an error came from (is_origin: a new path begins) or went
 * through. Any thread; async-signal-safe. Use the macros above. */
void dragon_error_note(bool is_origin, const char *file, int line);

/* What the macros call: note the place, and return r. */
static inline int dragon_error_originate(int r, const char *file, int line)
{
    dragon_error_note(true, file, line);
    return r;
}

/* The same for a place that r goes through; only if it is negative. */
static inline int dragon_error_fold(int r, const char *file, int line)
{
    if (__builtin_expect(r < 0, 0))
        dragon_error_note(false, file, line);
    return r;
}

/* Write the path of this thread's last error as "a.c:12 < b.c:40" into text,
 * always terminated; an empty string if there was none. Any thread. */
void dragon_error_path(char *text, size_t size_bytes);
