/*
 * sys.executable must be dragon, under the name it was called by: a link to dragon in the bin/ of a
 * virtual environment selects that environment by where the link lies, so links are not followed.
 */

#include "self.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_this_file(const char *path)
{
    struct stat running;
    struct stat named;
    return stat("/proc/self/exe", &running) == 0 && stat(path, &named) == 0 &&
           running.st_dev == named.st_dev && running.st_ino == named.st_ino;
}

/* Join the parts into path_out (PATH_MAX bytes). False, and "", if they do not fit. */
__attribute__((format(printf, 2, 3))) static bool join(char *path_out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(path_out, PATH_MAX, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= PATH_MAX) {
        path_out[0] = '\0';
        return false;
    }
    return true;
}

static bool from_working_directory(char *path_out, const char *name)
{
    char directory[PATH_MAX];
    if (!getcwd(directory, sizeof directory)) {
        return false;
    }
    while (name[0] == '.' && name[1] == '/') {
        name += 2;
    }
    return join(path_out, "%s/%s", strcmp(directory, "/") != 0 ? directory : "", name);
}

static bool from_search_path(char *path_out, const char *name)
{
    const char *entry = getenv("PATH");
    while (entry && *entry) {
        size_t length = strcspn(entry, ":");
        if (length && join(path_out, "%.*s/%s", (int)length, entry, name) &&
            is_this_file(path_out)) {
            return true;
        }
        entry += length + (entry[length] == ':');
    }
    return false;
}

static void find_path(struct dragon_self *self, const char *argv0)
{
    bool found = false;
    if (argv0[0] == '/') {
        found = join(self->path, "%s", argv0);
    } else if (strchr(argv0, '/')) {
        found = from_working_directory(self->path, argv0);
    } else if (argv0[0]) {
        found = from_search_path(self->path, argv0);
    }
    if (!found || !is_this_file(self->path)) {
        join(self->path, "%s", self->real);
    }
}

/* Is this the python of a virtual environment: a pyvenv.cfg in its folder or the one above? */
static bool has_venv_config(const char *executable)
{
    char directory[PATH_MAX];
    char config[PATH_MAX];
    join(directory, "%s", executable);
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(directory, '/');
        if (!slash) {
            return false;
        }
        *slash = '\0';
        if (join(config, "%s/pyvenv.cfg", directory) && access(config, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* A shell in an activated environment may find a dragon that is installed elsewhere. */
static void find_active_venv(struct dragon_self *self)
{
    const char *root = getenv("VIRTUAL_ENV");
    if (self->is_in_venv || !root || !*root || !join(self->venv_python, "%s/bin/python3", root) ||
        !has_venv_config(self->venv_python)) {
        self->venv_python[0] = '\0';
    }
}

void dragon_self_locate(struct dragon_self *self, const char *argv0)
{
    ssize_t length = readlink("/proc/self/exe", self->real, sizeof self->real - 1);
    self->real[length > 0 ? length : 0] = '\0';
    find_path(self, argv0);
    self->is_in_venv = has_venv_config(self->path);
    find_active_venv(self);
}
