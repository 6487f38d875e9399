#pragma once

/*
 * Pages that forked processes write soon after they were forked: each is copied then, by a page
 * fault at a time when somebody waits. One child writes down which they were; later ones have
 * them copied in advance, while nobody waits.
 *
 * All of it is a hint. What is written down is never more than which parts of the caller's own
 * memory to touch, and is believed only within the mappings that the forking process had. Without
 * /proc/self/pagemap, or before Linux 5.14, nothing happens.
 *
 * Who writes: `mappings`: the forking process, before it forks. The table, which all share: the one
 * child that took `state` from EMPTY to BEING_WRITTEN; should it die in the middle, the table stays
 * of no use.
 */

#include <stddef.h>
#include <stdint.h>

#define DRAGON_OS_MAX_MAPPINGS 512u
#define DRAGON_OS_MAX_PAGE_RANGES 1024u
/* Not more than so much is copied for a child, which may not need it. */
#define DRAGON_OS_MAX_WRITTEN_BYTES (UINT64_C(4) << 20)

struct dragon_os_range {
    uint64_t address;
    uint64_t size_bytes;
};

struct dragon_os_page_table {
    _Atomic uint32_t state;
    uint32_t n_ranges;
    struct dragon_os_range ranges[DRAGON_OS_MAX_PAGE_RANGES]; /* by address */
};

struct dragon_os_written_pages {
    struct dragon_os_page_table *table; /* shared with forked processes; NULL: none */
    size_t n_mappings;
    struct dragon_os_range mappings[DRAGON_OS_MAX_MAPPINGS]; /* private, writable; by address */
};

/* In the process that will fork, which has one thread: begin with an empty table. pages: all zero
 * bytes, or begun before, perhaps by the process that this one was forked by. */
void dragon_os_pages_begin(struct dragon_os_written_pages *pages);

/* In a forked process: if it is the first one, write down what it has written. */
void dragon_os_pages_note(struct dragon_os_written_pages *pages);

/* In a forked process: have the pages copied that are written down. */
void dragon_os_pages_populate(const struct dragon_os_written_pages *pages);
