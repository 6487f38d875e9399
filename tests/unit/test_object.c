#include "base/atomic.h"
#include "memory/object.h"
#include "memory/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define KIND DRAGON_KIND('T', 'E', 'S', 'T')
#define OTHER_KIND DRAGON_KIND('O', 'T', 'H', 'R')
#define STATE_BYTES 100

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

static void count_fini(struct dragon_object *object)
{
    (void)object;
    n_finished++;
}

static struct dragon_object create(void)
{
    struct dragon_object object;

    cr_assert_eq(dragon_object_create(pool, KIND, STATE_BYTES, &object), 0);
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
    cr_assert_eq(dragon_object_open(pool, &first.handle, KIND, STATE_BYTES, &second), 0);
    cr_assert_eq(memcmp(first.state, second.state, STATE_BYTES), 0);
    cr_assert(dragon_handle_is_same(&first.handle, &second.handle));
}

Test(object, the_last_user_frees_it_and_only_the_last)
{
    struct dragon_object first = create(), second;

    cr_assert_eq(dragon_object_open(pool, &first.handle, KIND, STATE_BYTES, &second), 0);
    dragon_object_close(&first, count_fini);
    cr_assert_eq(n_finished, 0);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_null(first.state);
    dragon_object_close(&second, count_fini);
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, a_kept_use_is_taken_over_by_who_adopts_it)
{
    struct dragon_object sender = create(), receiver;

    dragon_object_keep(&sender);
    dragon_object_close(&sender, count_fini);
    cr_assert_eq(n_blocks(), 1, "the message still uses it");
    cr_assert_eq(dragon_object_adopt(pool, &sender.handle, KIND, STATE_BYTES, &receiver), 0);
    dragon_object_close(&receiver, count_fini);
    cr_assert_eq(n_finished, 1);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, another_kind_is_refused)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, OTHER_KIND, STATE_BYTES, &other),
                 -EBADMSG);
    cr_assert_eq(dragon_object_adopt(pool, &object.handle, OTHER_KIND, STATE_BYTES, &other),
                 -EBADMSG);
}

Test(object, a_state_that_is_too_small_is_refused)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES + 1, &other), -EBADMSG);
}

Test(object, a_refused_opening_is_no_user)
{
    struct dragon_object object = create(), other;

    cr_assert_eq(dragon_object_open(pool, &object.handle, OTHER_KIND, 1, &other), -EBADMSG);
    dragon_object_close(&object, NULL);
    cr_assert_eq(n_blocks(), 0);
}

Test(object, a_freed_one_is_refused)
{
    struct dragon_object object = create(), other;

    dragon_object_close(&object, NULL);
    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES, &other), -EBADMSG);
}

Test(object, one_that_nobody_uses_any_more_is_refused)
{
    struct dragon_object object = create(), other;
    struct dragon_object_header *header = (struct dragon_object_header *)object.state - 1;

    /* As between the last user's decrement and its free. */
    dragon_poke(&header->n_users, 0);
    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, STATE_BYTES, &other), -EBADMSG);
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
        cr_assert_eq(dragon_object_open(pool, &handle, KIND, 0, &object), -EBADMSG);
    }
}

Test(object, one_that_does_not_fit_into_memory_is_refused)
{
    struct dragon_object object;

    /* 64 bytes of header more than this would wrap around. */
    cr_assert_neq(dragon_object_create(pool, KIND, UINT64_MAX - 63, &object), 0);
    cr_assert_eq(n_blocks(), 0);
}

static void *open_and_close(void *object)
{
    struct dragon_object mine;

    for (int i = 0; i < 200000; i++) {
        if (dragon_object_open(pool, &((struct dragon_object *)object)->handle, KIND, STATE_BYTES,
                               &mine) < 0)
            return (void *)1;
        dragon_object_close(&mine, count_fini);
    }
    return NULL;
}

Test(object, uses_of_several_threads_are_counted_exactly)
{
    struct dragon_object object = create();
    struct dragon_object_header *header = (struct dragon_object_header *)object.state - 1;
    pthread_t threads[3];
    void *failed;

    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, open_and_close, &object);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &failed);
        cr_assert_null(failed);
    }
    cr_assert_eq(dragon_peek(&header->n_users), 1);
    cr_assert_eq(n_finished, 0);
}
