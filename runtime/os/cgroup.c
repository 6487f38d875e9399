/*
 * /proc/self/cgroup names the group that the process is in, for each hierarchy of
 * version 1 and for version 2 ("0::/path"). /proc/self/mountinfo says where those
 * hierarchies are mounted, and from which group down. Nothing is allocated: the
 * thread that opens the node would have to set up the C library's heap for itself.
 */
#include "os/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two paths, and what else a line of mountinfo has. */
#define LINE_BYTES (2 * PATH_MAX + 512)

/* ---- lines of files ---- */

struct lines {
    int fd;
    bool is_cut; /* what comes is the rest of a line that is too long */
    size_t begin, end;
    char bytes[LINE_BYTES];
};

static void lines_open(struct lines *lines, const char *root, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s%s", root, name);
    lines->fd = open(path, O_RDONLY | O_CLOEXEC);
    lines->is_cut = false;
    lines->begin = lines->end = 0;
}

static void lines_close(struct lines *lines)
{
    if (lines->fd >= 0)
        close(lines->fd);
}

static bool read_more(struct lines *lines)
{
    ssize_t n;

    memmove(lines->bytes, lines->bytes + lines->begin, lines->end - lines->begin);
    lines->end -= lines->begin;
    lines->begin = 0;
    if (lines->end == LINE_BYTES) {
        lines->end = 0;
        lines->is_cut = true;
    }
    n = lines->fd < 0 ? -1 : read(lines->fd, lines->bytes + lines->end, LINE_BYTES - lines->end);
    lines->end += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next line, without its end, until the next call; NULL: there is none. Lines
 * that are too long are passed over. */
static char *next_line(struct lines *lines)
{
    for (;;) {
        char *line = lines->bytes + lines->begin;
        char *end = memchr(line, '\n', lines->end - lines->begin);
        bool is_whole = !lines->is_cut;

        if (!end && !read_more(lines))
            return NULL;
        if (!end)
            continue;
        *end = '\0';
        lines->begin = (size_t)(end + 1 - lines->bytes);
        lines->is_cut = false;
        if (is_whole)
            return line;
    }
}

/* Cut the line at the next separator; what is behind it, or NULL. */
static char *cut(char *line, const char *separator)
{
    char *rest = line ? strstr(line, separator) : NULL;

    if (!rest)
        return NULL;
    *rest = '\0';
    return rest + strlen(separator);
}

/* Is the word one of a list that commas separate? */
static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);

    for (;;) {
        if (strncmp(list, word, length) == 0 && (list[length] == ',' || list[length] == '\0'))
            return true;
        list = strchr(list, ',');
        if (!list)
            return false;
        list++;
    }
}

/* ---- where the process is ---- */

struct groups {
    char memory[PATH_MAX];  /* of version 1; "" for none */
    char unified[PATH_MAX]; /* of version 2; "" for none */
};

static void read_groups(const char *root, struct groups *groups)
{
    struct lines lines;
    char *line;

    groups->memory[0] = groups->unified[0] = '\0';
    lines_open(&lines, root, "/proc/self/cgroup");
    while ((line = next_line(&lines))) {
        char *controllers = cut(line, ":"), *path = cut(controllers, ":");

        if (!path || path[0] != '/' || strlen(path) >= PATH_MAX)
            continue;
        if (controllers[0] == '\0')
            memcpy(groups->unified, path, strlen(path) + 1);
        else if (has_word(controllers, "memory"))
            memcpy(groups->memory, path, strlen(path) + 1);
    }
    lines_close(&lines);
}

/* ---- the limits ---- */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* "max", and what is no number, is no limit. */
static uint64_t number_in_file(const char *folder, const char *name)
{
    char path[PATH_MAX + 64], text[32], *end;
    uint64_t number;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return UINT64_MAX;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    text[n] = '\0';
    number = strtoull(text, &end, 10);
    return *end == '\n' || *end == '\0' ? number : UINT64_MAX;
}

/* What the path has behind the folder; "" if it is not below it: then the folder is
 * all that we can see of where the process is. */
static const char *behind(const char *path, const char *folder)
{
    size_t length = strcmp(folder, "/") == 0 ? 0 : strlen(folder);

    if (strncmp(path, folder, length) != 0 || path[length] != '/' || path[length + 1] == '\0')
        return "";
    return path + length;
}

/* The least limit of the group and of those around it, up to where they are mounted. */
static uint64_t limit_of_group(const char *root, const char *mount_point, const char *group,
                               const char *name)
{
    char folder[PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s%s%s", root, mount_point, group);
    size_t shortest = strlen(root) + strlen(mount_point);
    uint64_t limit = UINT64_MAX;

    if (n < 0 || (size_t)n >= sizeof folder)
        return UINT64_MAX;
    for (;;) {
        limit = smaller(limit, number_in_file(folder, name));
        if (strlen(folder) <= shortest)
            return limit;
        *strrchr(folder, '/') = '\0';
    }
}

/* A line of mountinfo: "id parent device root mount_point options [more...] - type source
 * options". The limit if a hierarchy with this process's group is mounted there. */
static uint64_t limit_of_mount(const char *root, char *line, const struct groups *groups)
{
    char *mounted = cut(cut(cut(line, " "), " "), " ");
    char *mount_point = cut(mounted, " ");
    char *options = cut(mount_point, " ");
    char *type = cut(options, " - ");
    char *source = cut(type, " ");
    char *type_options = cut(source, " ");

    if (!type_options)
        return UINT64_MAX;
    if (strcmp(type, "cgroup2") == 0 && groups->unified[0])
        return limit_of_group(root, mount_point, behind(groups->unified, mounted), "memory.max");
    if (strcmp(type, "cgroup") == 0 && has_word(type_options, "memory") && groups->memory[0])
        return limit_of_group(root, mount_point, behind(groups->memory, mounted),
                              "memory.limit_in_bytes");
    return UINT64_MAX;
}

uint64_t dragon_cgroup_memory_limit(const char *root)
{
    uint64_t limit = UINT64_MAX;
    struct groups groups;
    struct lines lines;
    char *line;

    read_groups(root, &groups);
    lines_open(&lines, root, "/proc/self/mountinfo");
    while ((line = next_line(&lines)))
        limit = smaller(limit, limit_of_mount(root, line, &groups));
    lines_close(&lines);
    return limit;
}
