#pragma once

/*
 * For fuzz targets: shared memory as another process may have left it. A pool is
 * made once and its bytes are kept; for each input they are put back, and the
 * input is written over some of them.
 *
 * Robust mutexes are spared: the C library trusts them, so that one who writes
 * over them can stop or break any other process, and no check here can help.
 * They are found by their bytes, wherever a structure has them.
 */

#include "memory/pool.h"
#include "wait/mutex.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRIBBLE_MAX_MUTEXES 256
#define SCRIBBLE_MAX_REGIONS 16
#define SCRIBBLE_RECORD_BYTES 4

struct scribble_region {
    uint64_t offset;
    uint64_t size_bytes;
};

struct scribble {
    unsigned char *memory;   /* what processes share, */
    unsigned char *original; /* and as it was when it was taken up */
    uint64_t size_bytes;
    struct scribble_region regions[SCRIBBLE_MAX_REGIONS]; /* where inputs write */
    size_t n_regions;
    uint64_t mutexes[SCRIBBLE_MAX_MUTEXES];
    size_t n_mutexes;
};

/* A mutex that nobody holds. (Other bytes that look like one are spared, too.) */
static inline bool scribble_is_mutex(const unsigned char *bytes)
{
    const struct dragon_mutex *mutex = (const struct dragon_mutex *)bytes;

    return (dragon_mutex_is_sane(mutex, false) || dragon_mutex_is_sane(mutex, true)) &&
           dragon_mutex_holder(mutex) == 0;
}

/* Take up memory that is as it should be. */
static inline void scribble_take(struct scribble *scribble, void *memory, uint64_t size_bytes)
{
    *scribble = (struct scribble){.memory = memory, .size_bytes = size_bytes};
    scribble->original = malloc(size_bytes);
    if (!scribble->original)
        abort();
    memcpy(scribble->original, memory, size_bytes);
    for (uint64_t at = 0; at + sizeof(struct dragon_mutex) <= size_bytes; at += 8)
        if (scribble_is_mutex(scribble->memory + at)) {
            if (scribble->n_mutexes == SCRIBBLE_MAX_MUTEXES)
                abort();
            scribble->mutexes[scribble->n_mutexes++] = at;
        }
}

/* Take up the memory of a pool, through a mapping of its own. */
static inline void scribble_take_pool(struct scribble *scribble, struct dragon_pool *pool)
{
    struct stat status;
    void *memory;

    if (fstat(dragon_pool_fd(pool), &status) != 0)
        abort();
    memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                  dragon_pool_fd(pool), 0);
    if (memory == MAP_FAILED)
        abort();
    scribble_take(scribble, memory, (uint64_t)status.st_size);
}

static inline void scribble_add_region(struct scribble *scribble, uint64_t offset,
                                       uint64_t size_bytes)
{
    if (scribble->n_regions == SCRIBBLE_MAX_REGIONS || offset > scribble->size_bytes ||
        size_bytes > scribble->size_bytes - offset)
        abort();
    scribble->regions[scribble->n_regions++] = (struct scribble_region){offset, size_bytes};
}

/* A region for each block that the pool has. */
static inline void scribble_add_blocks(struct scribble *scribble, struct dragon_pool *pool)
{
    struct dragon_handle handle;
    uint64_t size_bytes;

    for (uint64_t at = 0; at < scribble->size_bytes; at += 64)
        if (dragon_pool_find(pool, at, &handle, &size_bytes) == 0)
            scribble_add_region(scribble, at, size_bytes);
}

static inline void scribble_restore(struct scribble *scribble)
{
    memcpy(scribble->memory, scribble->original, scribble->size_bytes);
}

/* Write an input over the regions. A record: which region, where in it in two
 * bytes, how many bytes follow; those bytes. */
static inline void scribble_write(struct scribble *scribble, const uint8_t *data, size_t n_data)
{
    while (n_data > SCRIBBLE_RECORD_BYTES) {
        const struct scribble_region *region = &scribble->regions[data[0] % scribble->n_regions];
        uint64_t at = (uint64_t)(data[1] | data[2] << 8) % region->size_bytes;
        size_t n = data[3];

        data += SCRIBBLE_RECORD_BYTES;
        n_data -= SCRIBBLE_RECORD_BYTES;
        n = n < n_data ? n : n_data;
        n = n < region->size_bytes - at ? n : region->size_bytes - at;
        memcpy(scribble->memory + region->offset + at, data, n);
        data += n;
        n_data -= n;
    }
    for (size_t i = 0; i < scribble->n_mutexes; i++)
        memcpy(scribble->memory + scribble->mutexes[i], scribble->original + scribble->mutexes[i],
               sizeof(struct dragon_mutex));
}
