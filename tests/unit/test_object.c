#include "base/atomic.h"
#include "memory/object.h"
#include "memory/pool.h"
#include "memory/uses.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define KIND DRAGON_KIND('T', 'E', 'S', 'T')
#define OTHER_KIND DRAGON_KIND('O', 'T', 'H', 'R')
#define STATE_BYTES 100
#define ME DRAGON_HOLDER_FIRST_SLOT
#define OTHER (DRAGON_HOLDER_FIRST_SLOT + 1)

static struct dragon_pool *pool;
static int n_finished;

static void open_pool(void)
{
    cr_assert_eq(dragon_pool_create_managed(8 << 20, 7, 1, &pool), 0);
    n_finished = 0;
}

static void close_pool(void)
{
    dragon_pool_close(pool);
}

TestSuite(object, .timeout = 60, .init = open_pool, .fini = close_pool);

static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks;
}

static void count_fini(struct dragon_object *object, struct dragon_garbage *garbage)
{
    (void)garbage;
    (void)object;
    n_finished++;
}

/* Frees the block that the state names. */
static void free_block_in(struct dragon_object *object, struct dragon_garbage *garbage)
{
    const struct dragon_handle *block = object->state;

    n_finished++;
    if (block->generation != 0)
        (void)dragon_uses_free_block(block, garbage);
}

static struct dragon_object create(void)
{
    struct dragon_object object;

    cr_assert_eq(dragon_object_create(pool, KIND, STATE_BYTES, ME, &object), 0);
    return object;
}

Test(object, a_new_state_is_zero_though_its_block_was_used_before)
{
    struct dragon_object object = create();

    memset(object.state, 0xff, STATE_BYTES);
    dragon_object_close(&object, NULL);
    object = create();
    for (int i = 0; i < STATE_BYTES; i++)
        cr_assert_eq(((unsigned char *)object.state)[i], 0);
}

Test(object, state_is_aligned_to_a_cache_line)
{
    cr_assert_eq((uintptr_t)create().state % 64, 0);
}

Test(object, opening_shows_the_same_state)
{
    struct dragon_object first = create(), second;

    memset(first.state, 9, STATE_BYTES);
    cr_assert_eq(dragon_object_open(pool, &first.handle, KIND, STATE_BYTES, ME, &second), 0);
    cr_assert_eq(memcmp(first.state, second.state, STATE_BYTES), 0);
    cr_assert(dragon_handle_is_same(&first.handle, &second.handle));
}

Test(object, the_last_user_frees_it_and_only_the_last)
{
    struct dragon_object first = create(), second;

    cr_assert_eq(dragon_object_open(pool, &first.handle, KIND, STATE_BYTES, ME, &second), 0);
    dragon_object_close(&first, count_fini);
    cr_assert_eq(n_finished, 0);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_null(first.state);
    dragon_object_close(&second, count_fini);
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, a_kept_use_is_one_more)
{
    struct dragon_object first = create(), again = first;

    cr_assert_eq(dragon_object_keep(&first, ME), 0);
    dragon_object_close(&first, count_fini);
    cr_assert_eq(n_finished, 0);
    dragon_object_close(&again, count_fini);
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, a_use_by_another_is_its_own)
{
    struct dragon_object mine = create(), others = mine;

    cr_assert_eq(dragon_object_keep(&mine, OTHER), 0);
    others.holder = OTHER;
    dragon_object_close(&others, count_fini);
    cr_assert_eq(n_finished, 0);
    dragon_object_close(&mine, count_fini);
    cr_assert_eq(n_finished, 1);
}

Test(object, another_kind_is_refused)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, OTHER_KIND, STATE_BYTES, ME, &other),
                 -EBADMSG);
}

Test(object, a_state_that_is_too_small_is_refused)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES + 1, ME, &other),
                 -EBADMSG);
}

Test(object, a_refused_opening_is_no_user)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, OTHER_KIND, 1, ME, &other), -EBADMSG);
    dragon_object_close(&object, NULL);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, a_freed_one_is_refused)
{
    struct dragon_object object = create(), other;

    dragon_object_close(&object, NULL);
    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES, ME, &other), -EBADMSG);
}

Test(object, one_that_nobody_uses_any_more_is_refused)
{
    struct dragon_object object = create(), other;
    struct dragon_object_header *header = dragon_object_header_of(object.state);

    /* As between the last user's going and the end of its block. */
    dragon_poke(&header->users.first[0].who, 0);
    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES, OTHER, &other),
                 -EBADMSG);
    cr_assert_eq(dragon_object_keep(&object, OTHER), -EBADMSG);
}

Test(object, a_block_that_is_no_object_is_refused)
{
    struct dragon_handle handle;
    struct dragon_object object;
    uint64_t size_bytes;
    void *address;

    for (uint64_t size = 1; size <= 4096; size += 65) {
        cr_assert_eq(dragon_pool_alloc(pool, size, DRAGON_HOLDER_SHARED, &handle), 0);
        cr_assert_eq(dragon_pool_resolve(pool, &handle, &address, &size_bytes), 0);
        memset(address, 0xa5, size);
        cr_assert_eq(dragon_object_open(pool, &handle, KIND, 0, ME, &object), -EBADMSG);
    }
}

Test(object, one_that_does_not_fit_into_memory_is_refused)
{
    struct dragon_object object;

    /* A header more than this would wrap around. */
    cr_assert_neq(dragon_object_create(pool, KIND, UINT64_MAX - 127, ME, &object), 0);
    cr_assert_eq(n_blocks(), 0);
}

static void *open_and_close(void *object)
{
    struct dragon_object mine;

    for (int i = 0; i < 200000; i++) {
        if (dragon_object_open(pool, &((struct dragon_object *)object)->handle, KIND, STATE_BYTES,
                               DRAGON_HOLDER_SHARED, &mine) < 0)
            return (void *)1;
        dragon_object_close(&mine, count_fini);
    }
    return NULL;
}

Test(object, uses_of_several_threads_are_counted_exactly)
{
    struct dragon_object object = create();
    struct dragon_object_header *header = dragon_object_header_of(object.state);
    pthread_t threads[3];
    void *failed;

    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, open_and_close, &object);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &failed);
        cr_assert_null(failed);
    }
    cr_assert_eq(dragon_peek(&header->users.first[0].n), 1);
    cr_assert_eq(n_finished, 0);
}

/* ---- many users ---- */

static uint32_t user(int i)
{
    return DRAGON_HOLDER_FIRST_SLOT + 100 + (uint32_t)i;
}

Test(object, thousands_of_users_come_and_go_in_any_order)
{
    enum { N = 3000 };
    struct dragon_object object = create();

    for (int i = 0; i < N; i++)
        cr_assert_eq(dragon_object_keep(&object, user(i)), 0);
    dragon_object_close(&object, count_fini);
    for (int i = 0; i < N; i++) {
        struct dragon_object its = object;

        cr_assert_eq(n_finished, 0);
        its.state = dragon_pool_at(pool, its.handle.offset + sizeof(struct dragon_object_header));
        its.holder = user((i * 7) % N); /* 7 does not divide N: each once */
        dragon_object_close(&its, count_fini);
    }
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0, "the table is freed with the object");
}

Test(object, a_full_pool_refuses_a_user_and_keeps_those_there_are)
{
    struct dragon_object object = create();
    struct dragon_handle filling;
    int n = 1;

    for (uint64_t size = 1 << 20; size >= 64; size /= 2)
        while (dragon_pool_alloc(pool, size, ME, &filling) == 0)
            ;
    while (dragon_object_keep(&object, user(n)) == 0)
        n++;
    cr_assert_eq(n, DRAGON_USERS_N_FIRST);
    cr_assert_eq(dragon_object_keep(&object, user(n)), DRAGON_POOL_FULL);
    cr_assert_eq(dragon_object_keep(&object, user(1)), 0, "it is one already");
}

/* ---- sweeping ---- */

static void sweep(uint32_t dead)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = dead};

    dragon_object_sweep(&garbage);
    dragon_garbage_free(&garbage, count_fini);
}

Test(object, the_sweep_of_the_only_user_frees_it)
{
    struct dragon_object object = create();

    cr_assert_eq(dragon_object_keep(&object, ME), 0, "twice: it is swept as a whole");
    sweep(OTHER);
    cr_assert_eq(n_finished, 0);
    sweep(ME);
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
    sweep(ME);
    cr_assert_eq(n_finished, 1);
}

Test(object, the_sweep_of_one_user_leaves_it_to_the_others)
{
    struct dragon_object object = create(), other = object;

    other.holder = OTHER;
    cr_assert_eq(dragon_object_keep(&object, OTHER), 0);
    sweep(ME);
    cr_assert_eq(n_finished, 0);
    dragon_object_close(&other, count_fini);
    cr_assert_eq(n_finished, 1);
}

Test(object, the_sweep_finds_the_dead_among_thousands)
{
    enum { N = 3000 };
    struct dragon_object object = create();

    for (int i = 0; i < N; i++)
        cr_assert_eq(dragon_object_keep(&object, user(i)), 0);
    dragon_object_close(&object, count_fini);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(n_finished, 0);
        sweep(user(i));
    }
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
}

/* ---- blocks that use objects ---- */

static struct dragon_handle block_using(const struct dragon_handle *objects, uint64_t n)
{
    struct dragon_handle block;

    cr_assert_eq(dragon_pool_alloc(pool, dragon_uses_block_bytes(77, n), ME, &block), 0);
    cr_assert_eq(dragon_uses_add(pool, &block, objects, n, ME), 0);
    return block;
}

static void free_block(const struct dragon_handle *block)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = ME};

    cr_assert_eq(dragon_uses_free_block(block, &garbage), 0);
    dragon_garbage_free(&garbage, count_fini);
}

Test(object, a_block_keeps_what_it_lists)
{
    struct dragon_object objects[] = {create(), create()};
    struct dragon_handle handles[] = {objects[0].handle, objects[1].handle, objects[0].handle};
    struct dragon_handle block = block_using(handles, 3), second = block_using(handles, 1);

    dragon_object_close(&objects[0], count_fini);
    dragon_object_close(&objects[1], count_fini);
    cr_assert_eq(n_finished, 0);
    free_block(&block);
    cr_assert_eq(n_finished, 1);
    free_block(&second);
    cr_assert_eq(n_finished, 2);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, who_gets_a_block_opens_what_it_lists)
{
    struct dragon_object object = create(), arrived;
    struct dragon_handle block = block_using(&object.handle, 1);

    dragon_object_close(&object, count_fini);
    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES, OTHER, &arrived), 0);
    free_block(&block);
    cr_assert_eq(n_finished, 0);
    dragon_object_close(&arrived, count_fini);
    cr_assert_eq(n_finished, 1);
}

Test(object, releasing_a_block_twice_takes_nothing_from_others)
{
    struct dragon_object object = create();
    struct dragon_handle block = block_using(&object.handle, 1);
    struct dragon_garbage garbage = {.pool = pool, .freer = ME};

    dragon_uses_release(&block, &garbage);
    dragon_uses_release(&block, &garbage);
    cr_assert_eq(garbage.first, 0);
    free_block(&block);
    cr_assert_eq(n_finished, 0);
    dragon_object_close(&object, count_fini);
    cr_assert_eq(n_finished, 1);
}

/* A program may send such bytes, or write them into memory that it has received. */
Test(object, bytes_that_only_look_like_a_list_take_nothing)
{
    struct dragon_object object = create();
    struct dragon_handle block = block_using(&object.handle, 1), copy;
    uint64_t size_bytes = dragon_uses_block_bytes(77, 1);

    cr_assert_eq(dragon_pool_alloc(pool, size_bytes, ME, &copy), 0);
    memcpy(dragon_pool_at(pool, copy.offset), dragon_pool_at(pool, block.offset), size_bytes);
    free_block(&copy);
    dragon_object_close(&object, count_fini);
    cr_assert_eq(n_finished, 0, "the true list keeps it");
    free_block(&block);
    cr_assert_eq(n_finished, 1);
}

Test(object, a_block_that_lists_what_is_gone_uses_nothing)
{
    struct dragon_object objects[] = {create(), create()};
    struct dragon_handle handles[] = {objects[0].handle, objects[1].handle}, block;

    dragon_object_close(&objects[1], count_fini);
    cr_assert_eq(dragon_pool_alloc(pool, dragon_uses_block_bytes(1, 2), ME, &block), 0);
    cr_assert_eq(dragon_uses_add(pool, &block, handles, 2, ME), -EBADMSG);
    dragon_object_close(&objects[0], count_fini);
    cr_assert_eq(n_finished, 2);
}

Test(object, a_long_list_of_lists_is_freed_without_recursion)
{
    enum { N = 20000 };
    struct dragon_object object, previous = create();

    /* Each state begins with the handle of a block that uses the one before: see fini. */
    for (int i = 1; i < N; i++) {
        struct dragon_handle block = block_using(&previous.handle, 1);

        object = create();
        memcpy(object.state, &block, sizeof block);
        dragon_object_close(&previous, NULL);
        previous = object;
    }
    dragon_object_close(&previous, free_block_in);
    cr_assert_eq(n_finished, N);
    cr_assert_eq(n_blocks(), 0);
}
