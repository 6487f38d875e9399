#include "os/rights.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATUS_BYTES 8192

/* Of users and groups the real and the effective one, as surroundings.py has it: exec changes the
 * saved one. */
static const char *const ids[] = {"\nUid:\t", "\nGid:\t"};

static const char *const lines[] = {
    "\nGroups:\t", "\nCapInh:\t",     "\nCapPrm:\t",  "\nCapEff:\t",          "\nCapBnd:\t",
    "\nCapAmb:\t", "\nNoNewPrivs:\t", "\nSeccomp:\t", "\nSeccomp_filters:\t",
};

static const char *const places[] = {"root", "ns/user", "ns/mnt", "ns/pid", "ns/net"};
#define N_PLACES (sizeof places / sizeof *places)

_Static_assert(sizeof(struct dragon_os_rights) == N_PLACES * 16 + DRAGON_OS_RIGHTS_STATUS_BYTES,
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

static int read_status(int32_t pid, char text_out[STATUS_BYTES])
{
    char path[64];
    ssize_t n;
    int fd;

    path_of(pid, "status", path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return failed();
    n = read(fd, text_out, STATUS_BYTES);
    close(fd);
    if (n <= 0)
        return n < 0 ? failed() : dragon_error_origin(-ENOENT);
    if (n == STATUS_BYTES)
        return dragon_error_origin(-E2BIG);
    text_out[n] = '\0';
    return 0;
}

/* Append the text from after key up to the n-th tab, or the line's end. What a kernel does not tell
 * is empty. */
static int append(struct dragon_os_rights *rights, size_t *used_io, const char *text,
                  const char *key, int n_tabs)
{
    const char *from = strstr(text, key);
    size_t n = 0;

    if (from) {
        from += strlen(key);
        while (from[n] != '\0' && from[n] != '\n' && (from[n] != '\t' || --n_tabs != 0))
            n++;
    }
    if (n + 1 >= DRAGON_OS_RIGHTS_STATUS_BYTES - *used_io)
        return dragon_error_origin(-E2BIG);
    memcpy(rights->status + *used_io, from ? from : "", n);
    *used_io += n + 1; /* a NUL, which is there */
    return 0;
}

static int add_status(int32_t pid, struct dragon_os_rights *rights)
{
    char text[STATUS_BYTES];
    size_t used = 0;
    int r = read_status(pid, text);

    for (size_t i = 0; r == 0 && i < sizeof ids / sizeof *ids; i++)
        r = append(rights, &used, text, ids[i], 2);
    for (size_t i = 0; r == 0 && i < sizeof lines / sizeof *lines; i++)
        r = append(rights, &used, text, lines[i], -1);
    return dragon_error_trace(r);
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
    if (memcmp(theirs.status, rights->status, sizeof theirs.status) != 0)
        return DRAGON_OS_OTHER_RIGHTS;
    r = add_places(pid, &theirs);
    if (r < 0)
        return r == -EACCES ? 0 : dragon_error_trace(r);
    return memcmp(theirs.places, rights->places, sizeof theirs.places) == 0
               ? 0
               : DRAGON_OS_OTHER_RIGHTS;
}
