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

/* ---- files of groups ---- */

/* The first line of a file, without its end; false: there is none. */
static bool read_first_line(const char *folder, const char *name, char *text, size_t size_bytes)
{
    char path[PATH_MAX + 64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, size_bytes - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return n > 0;
}

/* "max", and what else is no number, is UINT64_MAX. */
static uint64_t number_in(const char *text)
{
    uint64_t number;
    char *end;

    if (!text || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    number = strtoull(text, &end, 10);
    return *end == '\0' ? number : UINT64_MAX;
}

static uint64_t number_in_file(const char *folder, const char *name)
{
    char text[32];

    return read_first_line(folder, name, text, sizeof text) ? number_in(text) : UINT64_MAX;
}

/* ---- what can be limited ---- */

struct resource {
    const char *controller; /* its name in version 1 */
    /* The limit of the group whose folder this is, as version 1 or 2 writes it. */
    uint64_t (*limit_1)(const char *folder);
    uint64_t (*limit_2)(const char *folder);
};

static uint64_t memory_limit_1(const char *folder)
{
    return number_in_file(folder, "memory.limit_in_bytes");
}

static uint64_t memory_limit_2(const char *folder)
{
    return number_in_file(folder, "memory.max");
}

static const struct resource memory = {"memory", memory_limit_1, memory_limit_2};

/* How many processors it takes to use up the quota, at least 1. */
static uint64_t cpus(uint64_t quota_us, uint64_t period_us)
{
    if (quota_us == UINT64_MAX || period_us == UINT64_MAX || period_us == 0)
        return UINT64_MAX;
    return quota_us <= period_us ? 1 : (quota_us - 1) / period_us + 1;
}

static uint64_t cpu_limit_1(const char *folder)
{
    return cpus(number_in_file(folder, "cpu.cfs_quota_us"),
                number_in_file(folder, "cpu.cfs_period_us"));
}

/* "quota period", where quota may be "max". */
static uint64_t cpu_limit_2(const char *folder)
{
    char text[64], *period;

    if (!read_first_line(folder, "cpu.max", text, sizeof text))
        return UINT64_MAX;
    period = cut(text, " ");
    return cpus(number_in(text), number_in(period));
}

static const struct resource cpu = {"cpu", cpu_limit_1, cpu_limit_2};

/* ---- where the process is ---- */

struct groups {
    char own[PATH_MAX];     /* of version 1, of the resource's controller; "" for none */
    char unified[PATH_MAX]; /* of version 2; "" for none */
};

static void read_groups(const char *root, const struct resource *resource, struct groups *groups)
{
    struct lines lines;
    char *line;

    groups->own[0] = groups->unified[0] = '\0';
    lines_open(&lines, root, "/proc/self/cgroup");
    while ((line = next_line(&lines))) {
        char *controllers = cut(line, ":"), *path = cut(controllers, ":");

        if (!path || path[0] != '/' || strlen(path) >= PATH_MAX)
            continue;
        if (controllers[0] == '\0')
            memcpy(groups->unified, path, strlen(path) + 1);
        else if (has_word(controllers, resource->controller))
            memcpy(groups->own, path, strlen(path) + 1);
    }
    lines_close(&lines);
}

/* ---- the limits ---- */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
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
                               uint64_t (*limit_of_folder)(const char *folder))
{
    char folder[PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s%s%s", root, mount_point, group);
    size_t shortest = strlen(root) + strlen(mount_point);
    uint64_t limit = UINT64_MAX;

    if (n < 0 || (size_t)n >= sizeof folder)
        return UINT64_MAX;
    for (;;) {
        limit = smaller(limit, limit_of_folder(folder));
        if (strlen(folder) <= shortest)
            return limit;
        *strrchr(folder, '/') = '\0';
    }
}

/* A line of mountinfo: "id parent device root mount_point options [more...] - type source
 * options". The limit if a hierarchy with this process's group is mounted there. */
static uint64_t limit_of_mount(const char *root, const struct resource *resource, char *line,
                               const struct groups *groups)
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
        return limit_of_group(root, mount_point, behind(groups->unified, mounted),
                              resource->limit_2);
    if (strcmp(type, "cgroup") == 0 && has_word(type_options, resource->controller) &&
        groups->own[0])
        return limit_of_group(root, mount_point, behind(groups->own, mounted), resource->limit_1);
    return UINT64_MAX;
}

static uint64_t limit_of_resource(const char *root, const struct resource *resource)
{
    uint64_t limit = UINT64_MAX;
    struct groups groups;
    struct lines lines;
    char *line;

    read_groups(root, resource, &groups);
    lines_open(&lines, root, "/proc/self/mountinfo");
    while ((line = next_line(&lines)))
        limit = smaller(limit, limit_of_mount(root, resource, line, &groups));
    lines_close(&lines);
    return limit;
}

uint64_t dragon_cgroup_memory_limit(const char *root)
{
    return limit_of_resource(root, &memory);
}

uint64_t dragon_cgroup_cpu_limit(const char *root)
{
    return limit_of_resource(root, &cpu);
}
