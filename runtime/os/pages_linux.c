#include "os/pages.h"

#include "base/atomic.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Of an entry of /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst of Linux. */
#define PAGE_IS_PRESENT (UINT64_C(1) << 63)
#define PAGE_IS_NOT_SHARED (UINT64_C(1) << 56)

#define PAGE_BYTES ((uint64_t)sysconf(_SC_PAGESIZE))
#define LARGEST_BYTES ((uint64_t)1 << 30) /* a look at it: 2 ms */

enum { EMPTY = 0, BEING_WRITTEN, COMPLETE };

static struct dragon_os_page_table *new_table(void)
{
    void *table = mmap(NULL, sizeof(struct dragon_os_page_table), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return table == MAP_FAILED ? NULL : table;
}

/* Adds the mapping of a line of /proc/self/maps if it is private and writable, and not so large
 * that looking at each of its pages would take longer than it can save. */
static void add_mapping(struct dragon_os_written_pages *pages, const char *line)
{
    char *at;
    uint64_t begin = strtoull(line, &at, 16), end = *at == '-' ? strtoull(at + 1, &at, 16) : 0;

    /* begin-end rwxp ... */
    if (end > begin && end - begin <= LARGEST_BYTES && at[0] == ' ' && at[1] && at[2] == 'w' &&
        at[3] && at[4] == 'p' && pages->n_mappings < DRAGON_OS_MAX_MAPPINGS)
        pages->mappings[pages->n_mappings++] = (struct dragon_os_range){begin, end - begin};
}

void dragon_os_pages_begin(struct dragon_os_written_pages *pages)
{
    char line[512]; /* the rest of a longer one is no mapping */
    FILE *maps;

    if (pages->table)
        munmap(pages->table, sizeof *pages->table);
    *pages = (struct dragon_os_written_pages){.table = new_table()};
    maps = pages->table ? fopen("/proc/self/maps", "re") : NULL;
    while (maps && fgets(line, sizeof line, maps))
        add_mapping(pages, line);
    if (maps)
        fclose(maps);
}

/* ---- writing down ---- */

/* What has been found so far. */
struct notes {
    struct dragon_os_page_table *table;
    uint64_t n_bytes;
};

/* Adds a page; false: there is no more room. */
static bool note_page(struct notes *notes, uint64_t address)
{
    struct dragon_os_page_table *table = notes->table;
    struct dragon_os_range *last = table->n_ranges ? &table->ranges[table->n_ranges - 1] : NULL;

    if (notes->n_bytes + PAGE_BYTES > DRAGON_OS_MAX_WRITTEN_BYTES)
        return false;
    notes->n_bytes += PAGE_BYTES;
    if (last && last->address + last->size_bytes == address) {
        last->size_bytes += PAGE_BYTES;
        return true;
    }
    if (table->n_ranges == DRAGON_OS_MAX_PAGE_RANGES)
        return false;
    table->ranges[table->n_ranges++] = (struct dragon_os_range){address, PAGE_BYTES};
    return true;
}

/* Adds the pages of a mapping that this process shares with nobody, which it has written. */
static bool note_mapping(struct notes *notes, int pagemap, const struct dragon_os_range *mapping)
{
    uint64_t entries[512], end = mapping->address + mapping->size_bytes;
    uint64_t address = mapping->address;

    while (address < end) {
        uint64_t n = (end - address) / PAGE_BYTES;
        ssize_t size = (ssize_t)((n < 512 ? n : 512) * sizeof *entries);
        ssize_t got =
            pread(pagemap, entries, (size_t)size, (off_t)(address / PAGE_BYTES * sizeof *entries));

        if (got <= 0)
            return true;
        for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, address += PAGE_BYTES)
            if ((entries[i] & PAGE_IS_PRESENT) && (entries[i] & PAGE_IS_NOT_SHARED) &&
                !note_page(notes, address))
                return false;
    }
    return true;
}

void dragon_os_pages_note(struct dragon_os_written_pages *pages)
{
    struct notes notes = {.table = pages->table};
    uint32_t empty = EMPTY;
    int pagemap;

    if (!pages->table || dragon_peek(&pages->table->state) != EMPTY ||
        !dragon_replace(&pages->table->state, &empty, BEING_WRITTEN))
        return;
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return;
    for (size_t i = 0; i < pages->n_mappings; i++)
        if (!note_mapping(&notes, pagemap, &pages->mappings[i]))
            break;
    close(pagemap);
    dragon_publish(&pages->table->state, COMPLETE); /* pairs with _populate */
}

/* ---- copying in advance ---- */

static bool is_within(struct dragon_os_range range, const struct dragon_os_range *mapping)
{
    return range.address >= mapping->address && range.size_bytes <= mapping->size_bytes &&
           range.address - mapping->address <= mapping->size_bytes - range.size_bytes;
}

void dragon_os_pages_populate(const struct dragon_os_written_pages *pages)
{
    const struct dragon_os_range *mapping = pages->mappings;
    const struct dragon_os_range *end = mapping + pages->n_mappings;
    uint64_t left_bytes = DRAGON_OS_MAX_WRITTEN_BYTES;

    if (!pages->table || dragon_observe(&pages->table->state) != COMPLETE)
        return;
    for (uint32_t i = 0; i < DRAGON_OS_MAX_PAGE_RANGES && i < pages->table->n_ranges; i++) {
        struct dragon_os_range range = pages->table->ranges[i]; /* others may change it now */

        if (range.size_bytes > left_bytes)
            return;
        left_bytes -= range.size_bytes;
        while (mapping < end && mapping->address + mapping->size_bytes <= range.address)
            mapping++;
        if (mapping < end && is_within(range, mapping))
            (void)madvise((void *)range.address, range.size_bytes, MADV_POPULATE_WRITE);
    }
}
