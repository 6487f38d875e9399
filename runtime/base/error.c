#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* Deeper frames than this say nothing new; the origin is always kept. */
#define MAX_FRAMES 8

struct error_frame {
    const char *file;
    int line;
};

static _Thread_local struct error_frame frames[MAX_FRAMES];
static _Thread_local int n_frames;

void dragon_error_note(bool is_origin, const char *file, int line)
{
    if (is_origin)
        n_frames = 0;
    if (n_frames < MAX_FRAMES)
        frames[n_frames++] = (struct error_frame){file, line};
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

void dragon_error_path(char *text, size_t size_bytes)
{
    size_t used = 0;

    if (size_bytes == 0)
        return;
    text[0] = '\0';
    for (int i = 0; i < n_frames && used < size_bytes; i++)
        used += (size_t)snprintf(text + used, size_bytes - used, "%s%s:%d", i ? " < " : "",
                                 base_name(frames[i].file), frames[i].line);
}
