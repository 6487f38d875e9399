/*
 * The kernel lays the words and the environment behind each other, and /proc/PID/cmdline shows the
 * bytes of the words; if the last of those is not NUL any more, it shows one string that may go on
 * into the environment (fs/proc/base.c, get_mm_cmdline). So a title may be longer than the words
 * were. /proc/PID/environ keeps what no title has reached.
 *
 * The room and its state are globals: there is one command line in a process, and it outlives
 * main().
 */

#include "title.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"

#define NAME_BYTES 15

static char *room;
static char *copy;        /* of what was in it, for those who had pointers there */
static size_t room_bytes; /* 0: not prepared, no titles */
static size_t used_bytes; /* of it: by the words, then by the longest title */

/* The end of the strings of a list, as far as they lie behind each other from `end` on. */
static char *end_of(char **strings, char *end)
{
    for (; *strings == end; strings++) {
        end += strlen(end) + 1;
    }
    return end;
}

static char *moved(char *string)
{
    return string >= room && string < room + room_bytes ? copy + (string - room) : string;
}

static void move_all(char **strings)
{
    for (; *strings; strings++) {
        *strings = moved(*strings);
    }
}

void dragon_title_prepare(int argc, char **argv)
{
    if (argc < 1) {
        return;
    }
    char *words_end = end_of(argv, argv[0]);
    size_t n = (size_t)(end_of(environ, words_end) - argv[0]);
    copy = malloc(n);
    if (!copy) {
        return;
    }
    room = argv[0];
    room_bytes = n;
    used_bytes = (size_t)(words_end - room);
    memcpy(copy, room, n);
    move_all(argv);
    move_all(environ);
    program_invocation_name = moved(program_invocation_name);
    program_invocation_short_name = moved(program_invocation_short_name);
}

/* How many bytes of text to take when there is room for max, so that no character is cut in two. */
static size_t fitting(const char *text, size_t max)
{
    size_t n = strnlen(text, max + 1);
    if (n <= max) {
        return n;
    }
    n = max;
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) {
        n--;
    }
    return n;
}

void dragon_title_set(const char *text)
{
    char name[NAME_BYTES + 1] = {0};
    memcpy(name, text, fitting(text, NAME_BYTES));
    dragon_os_thread_name(name);
    if (room_bytes > 0) {
        size_t n = fitting(text, room_bytes - 1);
        used_bytes = n + 1 > used_bytes ? n + 1 : used_bytes;
        memset(room, 0, used_bytes);
        memcpy(room, text, n);
    }
}
