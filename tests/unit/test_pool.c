#include "base/deadline.h"
#include "memory/heap.h"
#include "memory/pool.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define NODE UINT64_C(0x1122334455667788)
#define NUMBER 5
#define MIB (UINT64_C(1) << 20)
#define SIZE_BYTES (4 * MIB)
#define HOLDER DRAGON_HOLDER_FIRST_SLOT

static struct dragon_pool *pool;
static char name[64];

static void open_pool(void)
{
    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, NODE, NUMBER, &pool), 0);
    snprintf(name, sizeof name, "/dragon-test-pool-%d", getpid());
}

static void close_pool(void)
{
    dragon_pool_close(pool);
    shm_unlink(name);
}

TestSuite(pool, .timeout = 60, .init = open_pool, .fini = close_pool);

static struct dragon_handle alloc(uint64_t size_bytes, uint32_t holder)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_alloc(pool, size_bytes, holder, &handle), 0);
    return handle;
}

static struct dragon_pool_statistics statistics_of(struct dragon_pool *of)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(of, &statistics);
    return statistics;
}

static int resolve(const struct dragon_handle *handle)
{
    uint64_t size_bytes;
    void *address;

    return dragon_pool_resolve(pool, handle, &address, &size_bytes);
}

/* ---- lifetime ---- */

Test(pool, a_new_one_is_free_and_knows_its_node_and_number)
{
    struct dragon_pool_statistics statistics = statistics_of(pool);

    cr_assert_eq(statistics.size_bytes, SIZE_BYTES);
    cr_assert_eq(statistics.free_bytes, SIZE_BYTES);
    cr_assert_eq(statistics.n_blocks, 0);
    cr_assert_eq(statistics.committed_bytes, 0);
    cr_assert_eq(dragon_pool_node(pool), NODE);
    cr_assert_eq(dragon_pool_number(pool), NUMBER);
    cr_assert(dragon_pool_check(pool));
}

Test(pool, sizes_are_rounded_up_to_chunks_of_4_kib_and_from_1_mib_on_of_64)
{
    uint64_t asked[] = {1, 32768, 65537, MIB - 1, MIB, MIB + 1, 100 * MIB - 1};
    uint64_t expected[] = {4096, 32768, 69632, MIB, MIB, MIB + 65536, 100 * MIB};

    for (int i = 0; i < 7; i++) {
        struct dragon_pool *other;

        cr_assert_eq(dragon_pool_create_managed(asked[i], NODE, 1, &other), 0);
        cr_assert_eq(statistics_of(other).size_bytes, expected[i]);
        dragon_pool_close(other);
    }
}

Test(pool, a_counted_one_below_64_mib_has_chunks_of_4_kib_so_that_many_sizes_fit)
{
    struct dragon_pool_options options = {.size_bytes = MIB, .node = NODE, .is_counted = true};
    struct dragon_handle handle;
    struct dragon_pool *other;

    cr_assert_eq(dragon_pool_make_managed(&options, &other), 0);
    for (uint64_t i = 0; i < 70; i++) /* 724 KiB of 1 MiB, of 70 sizes */
        cr_assert_eq(dragon_pool_alloc(other, 1 + 300 * i, HOLDER, &handle), 0);
    dragon_pool_close(other);
    options.size_bytes = 64 * MIB + 1;
    cr_assert_eq(dragon_pool_make_managed(&options, &other), 0);
    cr_assert_eq(statistics_of(other).size_bytes, 64 * MIB + DRAGON_HEAP_CHUNK_BYTES);
    dragon_pool_close(other);
}

Test(pool, powers_of_two_from_4_kib_on_fill_a_small_one_exactly_whatever_was_there_before)
{
    struct dragon_pool_options options = {.size_bytes = 512 << 10, .node = NODE};
    struct dragon_handle handles[128];
    struct dragon_pool *other;
    unsigned seed = 1;
    int n;

    cr_assert_eq(dragon_pool_make_managed(&options, &other), 0);
    for (int round = 0; round < 100; round++) {
        uint64_t left = 512 << 10;

        for (n = 0; left > 0; n++) {
            uint64_t size_bytes = UINT64_C(4096) << rand_r(&seed) % 8;

            while (size_bytes > left)
                size_bytes /= 2;
            cr_assert_eq(dragon_pool_alloc(other, size_bytes, HOLDER, &handles[n]), 0);
            left -= size_bytes;
        }
        cr_assert_eq(statistics_of(other).free_bytes, 0);
        for (int i = 0; i < n; i++) /* 7 is prime to all but multiples of itself; those wait */
            if (n % 7 != 0)
                cr_assert_eq(dragon_pool_free(other, &handles[i * 7 % n]), 0);
        if (n % 7 == 0)
            cr_assert_eq(dragon_pool_sweep(other, HOLDER), (uint64_t)n);
    }
    dragon_pool_close(other);
}

Test(pool, no_size_and_one_that_no_address_space_holds_are_errors)
{
    uint64_t sizes[] = {0, UINT64_C(1) << 48, UINT64_C(1) << 63, UINT64_MAX - 70000, UINT64_MAX};
    struct dragon_pool *other;

    for (int i = 0; i < 5; i++)
        cr_assert_lt(dragon_pool_create_managed(sizes[i], NODE, 1, &other), 0, "%lx",
                     (unsigned long)sizes[i]);
}

Test(pool, one_above_the_file_size_limit_is_an_error_and_no_signal)
{
    struct rlimit limit = {.rlim_cur = MIB, .rlim_max = MIB};
    struct dragon_pool *other;

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(dragon_pool_create_managed(16 * MIB, NODE, 1, &other), -EFBIG);
    cr_assert_eq(dragon_pool_create_managed(MIB / 2, NODE, 1, &other), 0);
    dragon_pool_close(other);
}

static uint64_t memory_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

Test(pool, of_more_than_half_the_memory_costs_what_is_used_of_it)
{
    struct dragon_pool *other;
    struct dragon_handle handle;
    struct stat file;

    cr_assert_eq(dragon_pool_create_named(name, memory_bytes() / 100 * 55, NODE, 1, &other), 0);
    cr_assert_eq(dragon_pool_alloc(other, 1, HOLDER, &handle), 0);
    cr_assert_eq(statistics_of(other).committed_bytes, DRAGON_HEAP_CHUNK_BYTES);
    cr_assert_eq(fstat(dragon_pool_fd(other), &file), 0);
    cr_assert_lt(file.st_blocks * 512, (int64_t)MIB);
    dragon_pool_close(other);
}

static uint64_t address_space_in_use(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long n_pages = 0;

    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu", &n_pages), 1);
    fclose(file);
    return (uint64_t)n_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

Test(pool, one_that_the_address_space_has_no_room_for_is_an_error)
{
    uint64_t most = address_space_in_use() + 512 * MIB; /* a sanitizer uses a lot */
    struct rlimit limit = {.rlim_cur = most, .rlim_max = most};
    struct dragon_pool *other;

    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    cr_assert_eq(dragon_pool_create_managed(1024 * MIB, NODE, 1, &other), -ENOMEM);
    cr_assert_eq(dragon_pool_create_named(name, 1024 * MIB, NODE, 1, &other), -ENOMEM);
    cr_assert_neq(dragon_pool_open_named(name, &other), 0, "the file stayed");
    cr_assert_eq(dragon_pool_create_managed(MIB, NODE, 1, &other), 0);
    dragon_pool_close(other);
}

/* True: /dev/shm holds 1 MiB from now on, for this process alone. */
static bool shrink_dev_shm(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") == 0;
}

Test(pool, a_named_one_that_dev_shm_has_no_room_for_is_an_error_and_no_signal)
{
    struct dragon_handle handles[64];
    struct dragon_pool *other;
    uint64_t size_bytes;
    void *address;
    int n = 0, r;

    if (!shrink_dev_shm())
        cr_skip_test("this user may not mount");
    cr_assert_eq(dragon_pool_create_named(name, SIZE_BYTES, NODE, 1, &other), 0);
    while ((r = dragon_pool_alloc(other, 40000, HOLDER, &handles[n])) == 0) {
        cr_assert_eq(dragon_pool_resolve(other, &handles[n], &address, &size_bytes), 0);
        memset(address, 0x55, size_bytes);
        n++;
    }
    cr_assert_eq(r, -ENOSPC);
    cr_assert_gt(n, 4); /* 1 MiB less the header is at least 4 chunks of 64 KiB */
    cr_assert_eq(dragon_pool_free(other, &handles[0]), 0);
    cr_assert_eq(dragon_pool_alloc(other, 40000, HOLDER, &handles[0]), 0);
    cr_assert(dragon_pool_check(other));
    dragon_pool_close(other);
}

Test(pool, another_mapping_sees_the_same_blocks)
{
    struct dragon_handle handle = alloc(1000, HOLDER);
    struct dragon_pool *other;
    uint64_t size_bytes;
    void *mine, *theirs;

    cr_assert_eq(dragon_pool_open_fd(dup(dragon_pool_fd(pool)), &other), 0);
    cr_assert_eq(dragon_pool_resolve(pool, &handle, &mine, &size_bytes), 0);
    cr_assert_eq(dragon_pool_resolve(other, &handle, &theirs, &size_bytes), 0);
    memset(mine, 0x77, 1000);
    cr_assert_neq(mine, theirs);
    cr_assert_eq(memcmp(mine, theirs, 1000), 0);
    cr_assert_eq(dragon_pool_free(other, &handle), 0);
    cr_assert_eq(resolve(&handle), -EBADMSG);
    dragon_pool_close(other);
}

Test(pool, closing_nothing_is_fine)
{
    dragon_pool_close(NULL);
}

Test(pool, a_file_that_is_no_pool_is_refused_and_closed)
{
    struct dragon_pool *other;
    int fd = memfd_create("test", 0);

    cr_assert_eq(ftruncate(fd, SIZE_BYTES), 0);
    cr_assert_eq(dragon_pool_open_fd(fd, &other), -EBADMSG);
    cr_assert_lt(fcntl(fd, F_GETFD), 0);
}

Test(pool, a_header_that_was_written_over_is_refused)
{
    struct dragon_pool *other;

    memset(dragon_pool_at(pool, 0), 0xee, offsetof(struct dragon_heap_header, mutex));
    cr_assert_eq(dragon_pool_open_fd(dup(dragon_pool_fd(pool)), &other), -EBADMSG);
}

Test(pool, root_bytes_are_zero_aligned_and_shared)
{
    struct dragon_pool *other;

    cr_assert_eq((uintptr_t)dragon_pool_root(pool) % 64, 0);
    for (int i = 0; i < DRAGON_POOL_ROOT_BYTES; i++)
        cr_assert_eq(((unsigned char *)dragon_pool_root(pool))[i], 0);
    memset(dragon_pool_root(pool), 0x42, DRAGON_POOL_ROOT_BYTES);
    cr_assert_eq(dragon_pool_open_fd(dup(dragon_pool_fd(pool)), &other), 0);
    for (int i = 0; i < DRAGON_POOL_ROOT_BYTES; i++)
        cr_assert_eq(((unsigned char *)dragon_pool_root(other))[i], 0x42);
    cr_assert(dragon_pool_check(other));
    dragon_pool_close(other);
}

/* ---- named pools ---- */

Test(pool, a_named_one_is_found_by_its_name_until_it_is_unlinked)
{
    struct dragon_pool *made, *found;

    cr_assert_eq(dragon_pool_create_named(name, MIB, NODE, 1, &made), 0);
    cr_assert_eq(dragon_pool_open_named(name, &found), 0);
    cr_assert_eq(dragon_pool_node(found), NODE);
    dragon_pool_close(found);
    cr_assert_eq(dragon_pool_unlink(name), 0);
    cr_assert_eq(dragon_pool_open_named(name, &found), -ENOENT);
    cr_assert_eq(dragon_pool_unlink(name), -ENOENT);
    dragon_pool_close(made);
}

Test(pool, a_named_one_exists_once_and_for_its_user_only)
{
    struct dragon_pool *made, *other;
    struct stat st;

    umask(0);
    cr_assert_eq(dragon_pool_create_named(name, MIB, NODE, 1, &made), 0);
    cr_assert_eq(dragon_pool_create_named(name, MIB, NODE, 1, &other), -EEXIST);
    cr_assert_eq(fstat(dragon_pool_fd(made), &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    dragon_pool_close(made);
}

Test(pool, a_name_is_of_the_pool_that_has_it_now)
{
    struct dragon_pool *first, *second;

    cr_assert_eq(dragon_pool_create_named(name, MIB, NODE, 1, &first), 0);
    cr_assert(dragon_pool_has_name(first, name));
    cr_assert_not(dragon_pool_has_name(first, "no-name"));
    cr_assert_eq(dragon_pool_unlink(name), 0);
    cr_assert_not(dragon_pool_has_name(first, name));
    cr_assert_eq(dragon_pool_create_named(name, MIB, NODE, 1, &second), 0);
    cr_assert_not(dragon_pool_has_name(first, name));
    cr_assert(dragon_pool_has_name(second, name));
    dragon_pool_close(first);
    dragon_pool_close(second);
}

Test(pool, bad_names_and_sizes_are_refused)
{
    const char *bad[] = {"", "/", "name", "a/b", "/a/b", "//"};
    struct dragon_pool *other;
    char longest[258];

    for (int i = 0; i < 6; i++) {
        cr_assert_eq(dragon_pool_create_named(bad[i], MIB, NODE, 1, &other), -EINVAL);
        cr_assert_eq(dragon_pool_open_named(bad[i], &other), -EINVAL);
        cr_assert_eq(dragon_pool_unlink(bad[i]), -EINVAL);
    }
    cr_assert_eq(dragon_pool_create_named(name, 0, NODE, 1, &other), -EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[257] = '\0';
    cr_assert_eq(dragon_pool_create_named(longest, MIB, NODE, 1, &other), -ENAMETOOLONG);
}

/* ---- blocks ---- */

Test(pool, handles_name_the_node_the_pool_and_the_block)
{
    struct dragon_handle a = alloc(1, HOLDER), b = alloc(1, HOLDER);

    cr_assert_eq(a.node, NODE);
    cr_assert_eq(a.pool, NUMBER);
    cr_assert_neq(a.offset, b.offset);
    cr_assert(dragon_handle_is_same(&a, &a));
    cr_assert_not(dragon_handle_is_same(&a, &b));
}

Test(pool, a_block_of_no_bytes_is_a_block)
{
    struct dragon_handle a = alloc(0, HOLDER), b = alloc(0, HOLDER);

    cr_assert_neq(a.offset, b.offset);
    cr_assert_eq(resolve(&a), 0);
    cr_assert_eq(statistics_of(pool).n_blocks, 2);
    cr_assert_eq(dragon_pool_free(pool, &a), 0);
}

Test(pool, resolve_gives_the_address_and_the_size_asked_for)
{
    struct dragon_handle handle = alloc(777, HOLDER);
    uint64_t size_bytes;
    void *address;

    cr_assert_eq(dragon_pool_resolve(pool, &handle, &address, &size_bytes), 0);
    cr_assert_eq(size_bytes, 777);
    cr_assert_eq(address, dragon_pool_at(pool, handle.offset));
    cr_assert_eq((uintptr_t)address % 64, 0);
}

Test(pool, foreign_and_invented_handles_are_refused)
{
    struct dragon_handle good = alloc(100, HOLDER), bad[8];

    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].node ^= 1;
    bad[1].pool ^= 1;
    bad[2].generation ^= 1;
    bad[3].offset += 64;
    bad[4].offset += 1;
    bad[5].offset = UINT64_MAX;
    bad[6].offset = 0;
    memset(&bad[7], 0, sizeof bad[7]);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(resolve(&bad[i]), -EBADMSG, "handle %d", i);
        cr_assert_eq(dragon_pool_free(pool, &bad[i]), -EBADMSG, "handle %d", i);
    }
    cr_assert_eq(resolve(&good), 0);
    cr_assert_eq(statistics_of(pool).n_blocks, 1);
}

Test(pool, a_stale_handle_is_refused)
{
    struct dragon_handle old = alloc(100, HOLDER), new;

    cr_assert_eq(dragon_pool_free(pool, &old), 0);
    cr_assert_eq(dragon_pool_free(pool, &old), -EBADMSG);
    new = alloc(100, HOLDER);
    cr_assert_eq(new.offset, old.offset);
    cr_assert_eq(resolve(&old), -EBADMSG);
    cr_assert_eq(dragon_pool_free(pool, &old), -EBADMSG);
}

Test(pool, holding_a_stale_handle_changes_nothing)
{
    struct dragon_handle old = alloc(100, HOLDER), new;
    uint32_t before;

    cr_assert_eq(dragon_pool_free(pool, &old), 0);
    cr_assert_eq(dragon_pool_hold(pool, &old, HOLDER + 1, &before), -EBADMSG);
    cr_assert(dragon_pool_check(pool));
    new = alloc(100, HOLDER);
    cr_assert_eq(new.offset, old.offset);
    cr_assert_eq(dragon_pool_hold(pool, &old, HOLDER + 1, &before), -EBADMSG);
    cr_assert_eq(dragon_pool_sweep(pool, HOLDER + 1), 0);
    cr_assert_eq(resolve(&new), 0);
}

Test(pool, find_completes_an_offset_to_a_handle)
{
    struct dragon_handle handle = alloc(100, HOLDER), found;
    uint64_t size_bytes;

    cr_assert_eq(dragon_pool_find(pool, handle.offset, &found, &size_bytes), 0);
    cr_assert(dragon_handle_is_same(&handle, &found));
    cr_assert_eq(size_bytes, 100);
    cr_assert_eq(dragon_pool_find(pool, handle.offset + 8, &found, &size_bytes), -EBADMSG);
    cr_assert_eq(dragon_pool_free(pool, &handle), 0);
    cr_assert_eq(dragon_pool_find(pool, handle.offset, &found, &size_bytes), -EBADMSG);
}

Test(pool, full_is_an_outcome_that_leaves_the_handle_alone)
{
    struct dragon_handle handle, before;

    memset(&before, 0x3c, sizeof before);
    handle = before;
    cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES + 1, HOLDER, &handle), DRAGON_POOL_FULL);
    cr_assert_eq(dragon_pool_alloc(pool, UINT64_MAX, HOLDER, &handle), DRAGON_POOL_FULL);
    cr_assert(dragon_handle_is_same(&handle, &before));
    cr_assert_eq(statistics_of(pool).n_blocks, 0);
    cr_assert(dragon_pool_check(pool));
}

Test(pool, statistics_follow_blocks_exactly)
{
    struct dragon_handle small = alloc(65, HOLDER), large = alloc(100000, HOLDER);

    /* 65 bytes take 128; 100000 take two chunks of 65536. */
    cr_assert_eq(statistics_of(pool).free_bytes, SIZE_BYTES - 128 - 131072);
    cr_assert_eq(statistics_of(pool).n_blocks, 2);
    cr_assert_eq(dragon_pool_free(pool, &small), 0);
    cr_assert_eq(dragon_pool_free(pool, &large), 0);
    cr_assert_eq(statistics_of(pool).free_bytes, SIZE_BYTES);
    cr_assert_eq(statistics_of(pool).n_blocks, 0);
}

Test(pool, a_counted_one_knows_the_most_blocks_that_there_were)
{
    struct dragon_pool_options options = {.size_bytes = MIB, .node = NODE, .is_counted = true};
    struct dragon_handle handles[5];
    struct dragon_pool *counted;

    cr_assert_eq(dragon_pool_make_managed(&options, &counted), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(dragon_pool_alloc(counted, 1 + (uint64_t)i * 9000, HOLDER, &handles[i]), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(dragon_pool_free(counted, &handles[i]), 0);
    cr_assert_eq(dragon_pool_alloc(counted, 1, HOLDER, &handles[0]), 0);
    cr_assert_eq(statistics_of(counted).n_blocks, 1);
    cr_assert_eq(statistics_of(counted).most_blocks, 5);
    cr_assert(dragon_pool_check(counted));
    dragon_pool_close(counted);
}

struct free_blocks {
    uint64_t n_reports;
    uint64_t sizes_bytes[8];
    uint64_t counts[8];
};

static void note_free_blocks(void *context, uint64_t size_bytes, uint64_t n)
{
    struct free_blocks *noted = context;

    if (noted->n_reports < 8) {
        noted->sizes_bytes[noted->n_reports] = size_bytes;
        noted->counts[noted->n_reports] = n;
    }
    noted->n_reports++;
}

Test(pool, free_blocks_are_the_rest_of_used_chunks_and_the_stretches_between_them)
{
    struct free_blocks noted = {0};
    struct dragon_handle handles[3];

    handles[0] = alloc(100000, HOLDER); /* 2 chunks */
    handles[1] = alloc(30000, HOLDER);  /* a chunk of 2 blocks of 32 KiB */
    handles[2] = alloc(100000, HOLDER);
    cr_assert_eq(dragon_pool_free(pool, &handles[0]), 0);
    dragon_pool_free_blocks(pool, note_free_blocks, &noted);
    cr_assert_eq(noted.n_reports, 3);
    cr_assert_eq(noted.sizes_bytes[0], 2 * DRAGON_HEAP_CHUNK_BYTES);
    cr_assert_eq(noted.counts[0], 1);
    cr_assert_eq(noted.sizes_bytes[1], 32768);
    cr_assert_eq(noted.counts[1], 1);
    cr_assert_eq(noted.sizes_bytes[2], SIZE_BYTES - 5 * DRAGON_HEAP_CHUNK_BYTES);
    cr_assert_eq(noted.counts[2], 1);
}

Test(pool, all_of_an_empty_one_is_one_free_block_however_it_was_used)
{
    struct free_blocks noted = {0};
    struct dragon_handle handles[40];

    for (int i = 0; i < 40; i++)
        handles[i] = alloc((uint64_t)(1 + i * 1000), HOLDER);
    for (int i = 0; i < 40; i++)
        cr_assert_eq(dragon_pool_free(pool, &handles[i]), 0);
    dragon_pool_limit(pool, SIZE_BYTES / 2);
    dragon_pool_free_blocks(pool, note_free_blocks, &noted);
    cr_assert_eq(noted.n_reports, 1);
    cr_assert_eq(noted.sizes_bytes[0], SIZE_BYTES / 2);
}

static uint64_t n_block_sizes(uint64_t size_bytes, uint64_t min_block_bytes)
{
    struct dragon_pool_options options = {
        .size_bytes = size_bytes,
        .node = NODE,
        .number = 1,
        .min_block_bytes = min_block_bytes,
    };
    struct dragon_pool *other;
    uint64_t n;

    cr_assert_eq(dragon_pool_make_managed(&options, &other), 0);
    n = dragon_pool_n_block_sizes(other);
    dragon_pool_close(other);
    return n;
}

Test(pool, sizes_of_blocks_are_those_of_small_ones_and_whole_chunks)
{
    /* 32 KiB: 64, 128, 192, 256, four a doubling up to 2048, then 8 chunks of 4 KiB */
    cr_assert_eq(n_block_sizes(32768, 0), 4 + 3 * 4 + 8);
    cr_assert_eq(n_block_sizes(32768, 2048), 1 + 8);
    cr_assert_eq(n_block_sizes(32768, 2049), 8);
    cr_assert_eq(n_block_sizes(32768, 32768), 1);
}

Test(pool, as_many_smallest_blocks_fit_as_it_says)
{
    uint64_t least_bytes[] = {0, 100, 3000, 5000};

    for (int i = 0; i < 4; i++) {
        struct dragon_pool_options options = {32768, NODE, 1, least_bytes[i], 0, false};
        struct dragon_handle handle;
        struct dragon_pool *other;
        uint64_t n = 0;

        cr_assert_eq(dragon_pool_make_managed(&options, &other), 0);
        while (dragon_pool_alloc(other, 1, HOLDER, &handle) == 0)
            n++;
        cr_assert_eq(n, statistics_of(other).n_smallest);
        dragon_pool_close(other);
    }
}

Test(pool, a_walk_sees_each_live_block_once)
{
    struct dragon_handle handles[300], found;
    uint64_t offset = 0, size_bytes, n_seen = 0;
    bool seen[300] = {0};
    uint32_t holder;

    for (uint64_t i = 0; i < 300; i++)
        handles[i] = alloc(1 + i * 37, HOLDER + (uint32_t)i % 3);
    for (int i = 0; i < 300; i += 2)
        cr_assert_eq(dragon_pool_free(pool, &handles[i]), 0);
    while (dragon_pool_next(pool, &offset, &found, &size_bytes, &holder)) {
        uint64_t i = (size_bytes - 1) / 37;

        cr_assert(i < 300 && i % 2 == 1 && !seen[i]);
        cr_assert(dragon_handle_is_same(&found, &handles[i]));
        cr_assert_eq(holder, HOLDER + i % 3);
        seen[i] = true;
        n_seen++;
    }
    cr_assert_eq(n_seen, 150);
}

static bool has_odd_number(void *handles, uint64_t offset, uint32_t generation)
{
    for (int i = 0; i < 10; i++) {
        const struct dragon_handle *handle = &((struct dragon_handle *)handles)[i];

        if (handle->offset == offset && handle->generation == generation)
            return i % 2;
    }
    return false;
}

Test(pool, a_sweep_with_exceptions_hands_them_to_the_channels)
{
    struct dragon_handle handles[10];
    uint32_t before = 0;

    for (uint64_t i = 0; i < 10; i++)
        handles[i] = alloc(1 + i * 9000, HOLDER);
    cr_assert(dragon_pool_has_blocks_of(pool, HOLDER));
    cr_assert_not(dragon_pool_has_blocks_of(pool, HOLDER + 1));
    cr_assert_eq(dragon_pool_sweep_except(pool, HOLDER, has_odd_number, handles), 5);
    cr_assert_not(dragon_pool_has_blocks_of(pool, HOLDER));
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(dragon_pool_hold(pool, &handles[i], HOLDER, &before), i % 2 ? 0 : -EBADMSG);
        cr_assert(i % 2 == 0 || before == DRAGON_HOLDER_CHANNEL);
    }
}

Test(pool, sweep_frees_what_a_holder_has)
{
    struct dragon_handle mine = alloc(100, HOLDER), given = alloc(100, HOLDER);
    uint32_t before;

    alloc(100000, HOLDER);
    cr_assert_eq(dragon_pool_hold(pool, &given, DRAGON_HOLDER_SHARED, &before), 0);
    cr_assert_eq(before, HOLDER);
    cr_assert_eq(dragon_pool_sweep(pool, HOLDER), 2);
    cr_assert_eq(resolve(&mine), -EBADMSG);
    cr_assert_eq(resolve(&given), 0);
}

Test(pool, prefault_commits_whole_chunks_up_to_its_size)
{
    cr_assert_eq(dragon_pool_prefault(pool, 65537), 0);
    cr_assert_eq(statistics_of(pool).committed_bytes, 131072);
    cr_assert_eq(dragon_pool_prefault(pool, 0), 0);
    cr_assert_eq(statistics_of(pool).committed_bytes, 131072);
    cr_assert_eq(dragon_pool_prefault(pool, 1000 * SIZE_BYTES), 0);
    cr_assert_eq(statistics_of(pool).committed_bytes, SIZE_BYTES);
}

Test(pool, memory_is_committed_as_it_is_used)
{
    alloc(1, HOLDER);
    cr_assert_eq(statistics_of(pool).committed_bytes, 65536);
    alloc(65536, HOLDER);
    cr_assert_eq(statistics_of(pool).committed_bytes, 2 * 65536);
}

Test(pool, a_limited_one_grows_to_its_limit_and_keeps_what_it_has)
{
    struct dragon_handle handle, first = alloc(65536, HOLDER), second = alloc(65536, HOLDER);

    dragon_pool_limit(pool, 3 * 65536);
    cr_assert_eq(statistics_of(pool).size_bytes, 3 * 65536);
    cr_assert_eq(statistics_of(pool).free_bytes, 65536);
    cr_assert_eq(dragon_pool_alloc(pool, 65537, HOLDER, &handle), DRAGON_POOL_FULL);
    alloc(65536, HOLDER);
    cr_assert_eq(dragon_pool_alloc(pool, 1, HOLDER, &handle), DRAGON_POOL_FULL);
    cr_assert_eq(dragon_pool_free(pool, &second), 0);
    dragon_pool_limit(pool, 65536);
    cr_assert_eq(resolve(&first), 0);
    cr_assert_eq(statistics_of(pool).free_bytes, 0);
    cr_assert(dragon_pool_check(pool));
}

Test(pool, a_limit_above_its_size_is_none)
{
    dragon_pool_limit(pool, 65536);
    dragon_pool_limit(pool, 100 * SIZE_BYTES);
    cr_assert_eq(statistics_of(pool).size_bytes, SIZE_BYTES);
}

/* ---- options ---- */

static void open_with(const struct dragon_pool_options *options)
{
    dragon_pool_close(pool);
    cr_assert_eq(dragon_pool_make_managed(options, &pool), 0);
}

Test(pool, one_of_32_kib_serves_blocks_from_1_byte_to_all_of_it)
{
    struct dragon_handle handle;

    open_with(&(struct dragon_pool_options){.size_bytes = 32768, .node = NODE, .number = NUMBER});
    for (uint64_t size = 1; size <= 32768; size *= 2) {
        handle = alloc(size, HOLDER);
        cr_assert_leq(statistics_of(pool).free_bytes, 32768 - size);
        cr_assert_eq(dragon_pool_free(pool, &handle), 0);
    }
    cr_assert_eq(statistics_of(pool).free_bytes, 32768);
    cr_assert_eq(dragon_pool_alloc(pool, 32769, HOLDER, &handle), DRAGON_POOL_FULL);
    cr_assert(dragon_pool_check(pool));
}

Test(pool, options_hold_in_every_process_that_opens_it)
{
    struct dragon_pool_options options = {.size_bytes = SIZE_BYTES,
                                          .node = NODE,
                                          .number = NUMBER,
                                          .min_block_bytes = 2048,
                                          .max_blocks = 2};
    struct dragon_handle handle;
    struct dragon_pool *other;

    cr_assert_eq(dragon_pool_make_named(name, &options, &other), 0);
    dragon_pool_close(other);
    cr_assert_eq(dragon_pool_open_named(name, &other), 0);
    cr_assert_eq(dragon_pool_node(other), NODE);
    cr_assert_eq(dragon_pool_number(other), NUMBER);
    cr_assert_eq(dragon_pool_alloc(other, 1, HOLDER, &handle), 0);
    cr_assert_eq(statistics_of(other).free_bytes, SIZE_BYTES - 2048);
    cr_assert_eq(dragon_pool_alloc(other, 1, HOLDER, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(other, 1, HOLDER, &handle), DRAGON_POOL_FULL);
    cr_assert_eq(dragon_pool_free(other, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(other, 1, HOLDER, &handle), 0);
    dragon_pool_close(other);
}

Test(pool, options_that_cannot_be_are_refused)
{
    struct dragon_pool_options options = {.size_bytes = MIB, .min_block_bytes = MIB + 1};
    struct dragon_pool *other;

    cr_assert_eq(dragon_pool_make_managed(&options, &other), -EINVAL);
    cr_assert_eq(dragon_pool_make_named(name, &options, &other), -EINVAL);
    cr_assert_eq(dragon_pool_open_named(name, &other), -ENOENT);
    options = (struct dragon_pool_options){.min_block_bytes = 1};
    cr_assert_eq(dragon_pool_make_managed(&options, &other), -EINVAL);
}

/* ---- waiting for room ---- */

#define ALL_BYTES SIZE_BYTES

Test(pool, waiting_where_there_is_room_is_allocating)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_alloc_wait(pool, 100, HOLDER, DRAGON_AT_ONCE, &handle), 0);
    cr_assert_eq(resolve(&handle), 0);
}

Test(pool, waiting_for_room_ends_at_the_deadline)
{
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);
    struct dragon_handle handle;

    alloc(ALL_BYTES, HOLDER);
    cr_assert_eq(dragon_pool_alloc_wait(pool, 1, HOLDER, DRAGON_AT_ONCE, &handle),
                 DRAGON_POOL_TIMEOUT);
    cr_assert_eq(dragon_pool_alloc_wait(pool, 1, HOLDER, deadline_ns, &handle),
                 DRAGON_POOL_TIMEOUT);
    cr_assert(dragon_deadline_passed(deadline_ns));
    cr_assert_eq(statistics_of(pool).n_blocks, 1);
}

Test(pool, nobody_waits_for_more_than_there_can_be)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_alloc_wait(pool, SIZE_BYTES + 1, HOLDER, DRAGON_FOREVER, &handle),
                 DRAGON_POOL_FULL);
    cr_assert_eq(dragon_pool_alloc_wait(pool, UINT64_MAX, HOLDER, DRAGON_FOREVER, &handle),
                 DRAGON_POOL_FULL);
    dragon_pool_limit(pool, 65536);
    cr_assert_eq(dragon_pool_alloc_wait(pool, 65537, HOLDER, DRAGON_AT_ONCE, &handle),
                 DRAGON_POOL_FULL);
}

static int wait_for_room(void *size_bytes)
{
    struct dragon_handle handle;

    return dragon_pool_alloc_wait(pool, *(uint64_t *)size_bytes, HOLDER + 1, test_soon(), &handle);
}

static struct dragon_eventcount *freed_of_pool(void)
{
    return &((struct dragon_heap_header *)dragon_pool_at(pool, 0))->freed;
}

static bool somebody_waits(void *nothing)
{
    (void)nothing;
    return dragon_eventcount_has_waiters(freed_of_pool());
}

static pid_t start_waiter(uint64_t size_bytes)
{
    static uint64_t wanted;
    pid_t waiter;

    wanted = size_bytes;
    waiter = child_start(wait_for_room, &wanted);
    cr_assert(becomes_true(somebody_waits, NULL));
    return waiter;
}

Test(pool, who_waits_for_room_is_woken_by_a_free)
{
    struct dragon_handle all = alloc(ALL_BYTES, HOLDER);
    pid_t waiter = start_waiter(100);

    cr_assert_eq(dragon_pool_free(pool, &all), 0);
    cr_assert_neq(dragon_peek(&freed_of_pool()->sequence), 0, "it was rung");
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_eq(statistics_of(pool).n_blocks, 1);
}

Test(pool, who_waits_for_room_is_woken_by_a_sweep)
{
    pid_t waiter;

    alloc(ALL_BYTES, HOLDER);
    waiter = start_waiter(ALL_BYTES);
    cr_assert_eq(dragon_pool_sweep(pool, HOLDER), 1);
    cr_assert_neq(dragon_peek(&freed_of_pool()->sequence), 0, "it was rung");
    cr_assert_eq(child_result(waiter), 0);
}

Test(pool, who_waits_for_much_sleeps_on_while_little_is_freed)
{
    struct dragon_handle half = alloc(ALL_BYTES / 2, HOLDER), rest = alloc(ALL_BYTES / 2, HOLDER);
    pid_t waiter = start_waiter(ALL_BYTES);

    cr_assert_eq(dragon_pool_free(pool, &half), 0);
    cr_assert(becomes_true(somebody_waits, NULL));
    cr_assert_eq(dragon_pool_free(pool, &rest), 0);
    cr_assert_eq(child_result(waiter), 0);
}

Test(pool, who_is_killed_waiting_for_room_takes_nothing_along)
{
    struct dragon_handle all = alloc(ALL_BYTES, HOLDER);
    pid_t killed = start_waiter(1), waiter = start_waiter(ALL_BYTES);

    kill(killed, SIGKILL);
    cr_assert_eq(child_result(killed), 256 + SIGKILL);
    cr_assert_eq(dragon_pool_free(pool, &all), 0);
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_eq(statistics_of(pool).n_blocks, 1);
}

static void ignore(int signal)
{
    (void)signal;
}

static int wait_with_a_signal(void *nothing)
{
    struct sigaction action = {.sa_handler = ignore};
    struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000};
    struct dragon_handle handle;

    (void)nothing;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    return dragon_pool_alloc_wait(pool, 1, HOLDER, test_soon(), &handle);
}

Test(pool, a_signal_ends_the_wait_for_room)
{
    alloc(ALL_BYTES, HOLDER);
    cr_assert_eq(child_result(child_start(wait_with_a_signal, NULL)), DRAGON_POOL_INTERRUPTED);
}

/* ---- several processes ---- */

static int alloc_and_die(void *holder)
{
    struct dragon_handle handle;

    for (int i = 0; i < 100; i++)
        if (dragon_pool_alloc(pool, (uint64_t)(i * 100), *(uint32_t *)holder, &handle) != 0)
            return 1;
    kill(getpid(), SIGKILL);
    return 2;
}

Test(pool, what_a_killed_process_held_can_be_swept)
{
    struct dragon_handle mine = alloc(100, HOLDER);
    uint32_t holder = HOLDER + 9;

    cr_assert_eq(child_result(child_start(alloc_and_die, &holder)), 256 + SIGKILL);
    cr_assert_eq(statistics_of(pool).n_blocks, 101);
    cr_assert_eq(dragon_pool_sweep(pool, holder), 100);
    cr_assert_eq(resolve(&mine), 0);
    cr_assert(dragon_pool_check(pool));
}

static int churn(void *seed)
{
    struct dragon_handle handles[50];

    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 50; i++)
            if (dragon_pool_alloc(pool, (uint64_t)((round + i + *(int *)seed) % 60 * 97), HOLDER,
                                  &handles[i]) != 0)
                return 1;
        for (int i = 0; i < 50; i++)
            if (dragon_pool_free(pool, &handles[i]) != 0)
                return 2;
    }
    return 0;
}

Test(pool, processes_that_use_it_at_once_do_not_disturb_each_other)
{
    pid_t children[3];
    int seeds[3] = {1, 2, 3};

    for (int i = 0; i < 3; i++)
        children[i] = child_start(churn, &seeds[i]);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_result(children[i]), 0);
    cr_assert_eq(statistics_of(pool).n_blocks, 0);
    cr_assert_eq(statistics_of(pool).free_bytes, SIZE_BYTES);
    cr_assert(dragon_pool_check(pool));
}
