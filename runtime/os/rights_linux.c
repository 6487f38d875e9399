#include "os/rights.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Of users and groups the real and the effective one, as surroundings.py has it: exec changes the
 * saved one. */
static const char *const lines[] = {
    "Uid:\t",    "Gid:\t",    "Groups:\t",     "CapInh:\t",  "CapPrm:\t",          "CapEff:\t",
    "CapBnd:\t", "CapAmb:\t", "NoNewPrivs:\t", "Seccomp:\t", "Seccomp_filters:\t",
};
#define N_IDS 2
#define N_LINES (sizeof lines / sizeof *lines)

static const char *const places[] = {"root", "ns/user", "ns/mnt", "ns/pid", "ns/net"};
#define N_PLACES (sizeof places / sizeof *places)

_Static_assert(N_LINES == DRAGON_OS_RIGHTS_N_LINES, "room for all lines");
_Static_assert(sizeof(struct dragon_os_rights) == N_PLACES * 16 + N_LINES * 8,
               "no padding, and room for all places");

static void path_of(int32_t pid, const char *name, char path_out[64])
{
    if (pid == 0)
        snprintf(path_out, 64, "/proc/self/%s", name);
    else
        snprintf(path_out, 64, "/proc/%d/%s", pid, name);
}

static int failed(void)
{
    return dragon_error_origin(-errno);
}

/* FNV-1a, of the text up to the n-th tab or the line's end. */
static uint64_t hash_of(const char *text, int n_tabs)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    while (*text != '\0' && *text != '\n' && (*text != '\t' || --n_tabs != 0))
        hash = (hash ^ (unsigned char)*text++) * UINT64_C(0x100000001b3);
    return hash;
}

static void add_line(const char *line, struct dragon_os_rights *rights)
{
    for (size_t i = 0; i < N_LINES; i++)
        if (strncmp(line, lines[i], strlen(lines[i])) == 0)
            rights->lines[i] = hash_of(line + strlen(lines[i]), i < N_IDS ? 2 : -1);
}

/* What the kernel does not tell stays 0. */
static int add_status(int32_t pid, struct dragon_os_rights *rights)
{
    char path[64], *line = NULL;
    size_t capacity = 0;
    FILE *file;
    int r = 0;

    path_of(pid, "status", path);
    file = fopen(path, "re");
    if (!file)
        return failed();
    while (getline(&line, &capacity, file) > 0) /* groups may be 65536 */
        add_line(line, rights);
    if (!feof(file) || ferror(file))
        r = failed();
    else if (rights->lines[0] == 0)
        r = dragon_error_origin(-ENOENT);
    free(line);
    fclose(file);
    return r;
}

/* -EACCES: the kernel does not show it. */
static int add_place(int32_t pid, const char *name, uint64_t place_out[2])
{
    struct stat status;
    char path[64];

    path_of(pid, name, path);
    if (stat(path, &status) < 0)
        return failed();
    place_out[0] = status.st_dev;
    place_out[1] = status.st_ino;
    return 0;
}

static int add_places(int32_t pid, struct dragon_os_rights *rights)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < N_PLACES; i++)
        r = add_place(pid, places[i], &rights->places[2 * i]);
    return r;
}

int dragon_os_rights(struct dragon_os_rights *rights_out)
{
    int r;

    memset(rights_out, 0, sizeof *rights_out);
    r = add_status(0, rights_out);
    if (r == 0)
        r = add_places(0, rights_out);
    return dragon_error_trace(r);
}

int dragon_os_check_rights(int32_t pid, const struct dragon_os_rights *rights)
{
    struct dragon_os_rights theirs = {0};
    int r = add_status(pid, &theirs);

    if (r < 0)
        return dragon_error_trace(r);
    if (memcmp(theirs.lines, rights->lines, sizeof theirs.lines) != 0)
        return DRAGON_OS_OTHER_RIGHTS;
    r = add_places(pid, &theirs);
    if (r < 0)
        return r == -EACCES ? 0 : dragon_error_trace(r);
    return memcmp(theirs.places, rights->places, sizeof theirs.places) == 0
               ? 0
               : DRAGON_OS_OTHER_RIGHTS;
}
