/* One forked process writes down which pages it wrote; the next ones have them copied in advance.
 */
#include "os/pages.h"

#include "base/atomic.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(pages, .timeout = 30);

#define N_PAGES 2048u /* twice what is copied at most */
#define NOT_SHARED (UINT64_C(1) << 56)

static struct dragon_os_written_pages pages;
static char *memory;
static size_t page_bytes;

static char *page(size_t i)
{
    return memory + i * page_bytes;
}

/* Private memory, written, in a mapping of its own. */
static void make_memory(void)
{
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    memory = mmap(NULL, N_PAGES * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    madvise(memory, N_PAGES * page_bytes, MADV_NOHUGEPAGE);
    memset(memory, 1, N_PAGES * page_bytes);
    dragon_os_pages_begin(&pages);
    cr_assert_neq(pages.table, NULL);
}

/* Whether the calling process has a copy of its own of a page that it was forked with. */
static bool has_copy_of(const char *address)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry = 0;
    off_t at = (off_t)((uintptr_t)address / page_bytes * sizeof entry);
    bool is_read = pread(pagemap, &entry, sizeof entry, at) == sizeof entry;

    close(pagemap);
    return is_read && entry & NOT_SHARED;
}

static bool is_noted(const char *address)
{
    for (uint32_t i = 0; i < pages.table->n_ranges; i++) {
        const struct dragon_os_range *range = &pages.table->ranges[i];

        if ((uintptr_t)address - range->address < range->size_bytes)
            return true;
    }
    return false;
}

static int write_and_note(void *n_pages)
{
    for (size_t i = 0; i < *(const size_t *)n_pages; i++)
        *page(2 * i) = 2;
    dragon_os_pages_note(&pages);
    return 0;
}

static void have_child_note(size_t n_pages)
{
    cr_assert_eq(child_result(child_start(write_and_note, &n_pages)), 0);
}

/* Which of the first four pages it has copies of by then, as bits. */
static int populate(void *unused)
{
    int copies = 0;

    (void)unused;
    dragon_os_pages_populate(&pages);
    for (size_t i = 0; i < 4; i++)
        copies |= has_copy_of(page(i)) << i;
    return copies;
}

static int copies_of_next_child(void)
{
    return child_result(child_start(populate, NULL));
}

Test(pages, what_one_child_wrote_the_next_one_has_copied_before_it_writes, .init = make_memory)
{
    cr_assert_eq(copies_of_next_child(), 0, "nothing is known yet");
    have_child_note(2);
    cr_assert(is_noted(page(0)) && is_noted(page(2)));
    cr_assert_not(is_noted(page(1)));
    cr_assert_eq(copies_of_next_child(), 1 | 4);
    cr_assert_eq(*page(0), 1, "they are the child's");
}

Test(pages, only_the_first_child_writes_down, .init = make_memory)
{
    have_child_note(1);
    have_child_note(2);
    cr_assert_not(is_noted(page(2)));
}

Test(pages, what_is_begun_again_knows_of_nothing, .init = make_memory)
{
    have_child_note(2);
    dragon_os_pages_begin(&pages);
    cr_assert_eq(copies_of_next_child(), 0);
    have_child_note(1);
    cr_assert_eq(copies_of_next_child(), 1);
}

Test(pages, no_more_is_written_down_than_the_limit, .init = make_memory)
{
    uint64_t n_bytes = 0;

    have_child_note(N_PAGES / 2);
    for (uint32_t i = 0; i < pages.table->n_ranges; i++)
        n_bytes += pages.table->ranges[i].size_bytes;
    cr_assert_gt(n_bytes, 0);
    cr_assert_leq(n_bytes, DRAGON_OS_MAX_WRITTEN_BYTES);
    cr_assert_leq(pages.table->n_ranges, DRAGON_OS_MAX_PAGE_RANGES);
}

Test(pages, where_the_writer_died_nothing_is_copied_and_nobody_waits, .init = make_memory)
{
    have_child_note(2);
    dragon_poke(&pages.table->state, 1);
    cr_assert_eq(copies_of_next_child(), 0);
    have_child_note(2);
    cr_assert_eq(copies_of_next_child(), 0);
}

Test(pages, what_makes_no_sense_is_not_touched, .init = make_memory)
{
    const struct dragon_os_range whole = {(uintptr_t)memory, N_PAGES * page_bytes};
    const struct dragon_os_range wrong[] = {
        {(uintptr_t)memory, UINT64_MAX},                  /* beyond its end */
        {(uintptr_t)memory - page_bytes, 2 * page_bytes}, /* perhaps another's */
        {whole.address + whole.size_bytes - page_bytes, UINT64_MAX - whole.address},
        {0, page_bytes},
        {UINT64_MAX, UINT64_MAX},
        whole, /* more than the limit */
    };

    have_child_note(1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pages.table->ranges[0] = wrong[i];
        pages.table->n_ranges = 1;
        cr_expect_eq(copies_of_next_child(), 0, "%zu", i);
    }
    pages.table->ranges[0] = (struct dragon_os_range){(uintptr_t)memory, page_bytes};
    pages.table->n_ranges = UINT32_MAX;
    cr_assert_eq(copies_of_next_child() & 1, 1);
}

Test(pages, without_a_beginning_nothing_happens)
{
    static struct dragon_os_written_pages nothing;

    dragon_os_pages_note(&nothing);
    dragon_os_pages_populate(&nothing);
    cr_assert_eq(nothing.table, NULL);
}

/* As sanitizers and some libraries have them: a look at all of it would take minutes. */
Test(pages, a_mapping_of_terabytes_is_not_looked_at)
{
    size_t size_bytes = (size_t)1 << 41;
    char *huge = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    cr_assert_neq(huge, MAP_FAILED);
    huge[0] = 1;
    dragon_os_pages_begin(&pages);
    for (size_t i = 0; i < pages.n_mappings; i++)
        cr_assert_neq(pages.mappings[i].address, (uintptr_t)huge);
}
