#include "memory/pool.h"
#include "support/shared_page.h"
#include "sync/condition.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(condition, .timeout = 60);

/* What a test and its children share. */
struct room {
    struct dragon_condition condition;
    struct dragon_pool *pool; /* inherited by fork: one mapping at one address */
    _Atomic uint32_t n_notified;
};

static struct room *new_room(void)
{
    struct room *room = shared_page(sizeof *room);

    cr_assert_eq(dragon_condition_init(&room->condition), 0);
    return room;
}

static struct dragon_condition_waiter *enter(struct room *room)
{
    struct dragon_condition_waiter *waiter;

    cr_assert_eq(dragon_condition_enter(&room->condition, room->pool, &waiter), 0);
    return waiter;
}

static uint64_t notify(struct room *room, uint64_t n)
{
    return dragon_condition_notify(&room->condition, room->pool, n);
}

static uint64_t n_waiting(struct room *room)
{
    return dragon_condition_n_waiting(&room->condition, room->pool);
}

Test(condition, a_notification_without_waiters_is_not_kept)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter;

    cr_assert_eq(notify(room, 1), 0);
    waiter = enter(room);
    cr_assert_eq(dragon_condition_wait(waiter, DRAGON_AT_ONCE), DRAGON_CONDITION_TIMEOUT);
    cr_assert_eq(dragon_condition_leave(waiter), DRAGON_CONDITION_NOT_NOTIFIED);
}

Test(condition, notify_before_the_wait_begins_is_kept_for_who_has_entered)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter = enter(room);

    cr_assert_eq(notify(room, 1), 1);
    cr_assert_eq(dragon_condition_wait(waiter, DRAGON_FOREVER), 0);
    cr_assert_eq(dragon_condition_leave(waiter), 0);
}

Test(condition, a_wait_times_out_at_its_deadline)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter = enter(room);
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);

    cr_assert_eq(dragon_condition_wait(waiter, deadline_ns), DRAGON_CONDITION_TIMEOUT);
    cr_assert(dragon_deadline_passed(deadline_ns));
}

Test(condition, those_are_notified_that_have_waited_longest)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *first = enter(room), *second = enter(room);
    struct dragon_condition_waiter *third;

    cr_assert_eq(dragon_condition_leave(first), DRAGON_CONDITION_NOT_NOTIFIED);
    third = enter(room); /* in the place of the first, but behind the second */
    cr_assert_eq(third, first);
    cr_assert_eq(notify(room, 1), 1);
    cr_assert(dragon_condition_is_notified(second));
    cr_assert_not(dragon_condition_is_notified(third));
}

Test(condition, notify_wakes_exactly_as_many_as_it_is_told)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiters[5];

    for (int i = 0; i < 5; i++)
        waiters[i] = enter(room);
    cr_assert_eq(notify(room, 2), 2);
    cr_assert_eq(n_waiting(room), 3);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(dragon_condition_is_notified(waiters[i]), i < 2);
    cr_assert_eq(notify(room, UINT64_MAX), 3);
    cr_assert_eq(n_waiting(room), 0);
}

Test(condition, a_waiter_that_left_swallows_no_notification)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *impatient = enter(room), *patient = enter(room);

    dragon_condition_leave(impatient);
    cr_assert_eq(notify(room, 1), 1);
    cr_assert(dragon_condition_is_notified(patient));
}

Test(condition, a_notification_that_came_with_the_time_out_counts)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter = enter(room);

    cr_assert_eq(dragon_condition_wait(waiter, DRAGON_AT_ONCE), DRAGON_CONDITION_TIMEOUT);
    cr_assert_eq(notify(room, 1), 1);
    cr_assert_eq(dragon_condition_leave(waiter), 0);
}

Test(condition, cancel_passes_a_notification_on)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *failing = enter(room), *next = enter(room);

    cr_assert_eq(notify(room, 1), 1);
    cr_assert(dragon_condition_is_notified(failing));
    dragon_condition_cancel(&room->condition, room->pool, failing);
    cr_assert(dragon_condition_is_notified(next));
}

Test(condition, without_a_pool_there_is_room_for_the_inline_entries_only)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter;

    for (int i = 0; i < DRAGON_CONDITION_N_INLINE; i++)
        enter(room);
    cr_assert_eq(dragon_condition_enter(&room->condition, NULL, &waiter), -ENOMEM);
}

Test(condition, any_number_of_waiters_finds_room_in_the_pool_and_gives_it_back)
{
    enum { N = DRAGON_CONDITION_N_INLINE + 2 * DRAGON_CONDITION_N_MORE };
    struct room *room = new_room();
    struct dragon_condition_waiter *waiters[N];
    struct dragon_pool_statistics before, after;

    cr_assert_eq(dragon_pool_create_managed(1 << 22, 1, 1, &room->pool), 0);
    dragon_pool_statistics(room->pool, &before);
    for (int i = 0; i < N; i++)
        waiters[i] = enter(room);
    cr_assert_eq(n_waiting(room), N);
    cr_assert_eq(notify(room, N - 1), N - 1);
    for (int i = 0; i < N; i++)
        cr_assert_eq(dragon_condition_leave(waiters[i]) == 0, i < N - 1);
    dragon_condition_fini(&room->condition, room->pool);
    dragon_pool_statistics(room->pool, &after);
    cr_assert_eq(after.n_blocks, before.n_blocks);
    dragon_pool_close(room->pool);
}

Test(condition, a_broken_chain_of_entries_ends_the_walk)
{
    struct room *room = new_room();
    struct dragon_condition_waiter *waiter;

    cr_assert_eq(dragon_pool_create_managed(1 << 22, 1, 1, &room->pool), 0);
    for (int i = 0; i <= DRAGON_CONDITION_N_INLINE; i++)
        enter(room);
    room->condition.next.block.offset += 4096; /* another process wrote nonsense */
    cr_assert_eq(n_waiting(room), DRAGON_CONDITION_N_INLINE);
    cr_assert_eq(dragon_condition_enter(&room->condition, room->pool, &waiter), -EBADMSG);
    dragon_pool_close(room->pool);
}

/* ---- several processes ---- */

static int wait_once(void *argument)
{
    struct room *room = argument;
    struct dragon_condition_waiter *waiter;
    int r = dragon_condition_enter(&room->condition, room->pool, &waiter);

    if (r < 0)
        return 100;
    r = dragon_condition_wait(waiter, test_soon());
    if (r == 0)
        dragon_fetch_add(&room->n_notified, 1);
    return dragon_condition_leave(waiter) == 0 ? r : 101;
}

static bool one_waits(void *room)
{
    return n_waiting(room) == 1;
}

static bool five_wait(void *room)
{
    return n_waiting(room) == 5;
}

static bool two_are_notified(void *argument)
{
    return dragon_observe(&((struct room *)argument)->n_notified) == 2;
}

Test(condition, notify_n_releases_n_processes_and_notify_all_the_rest)
{
    struct room *room = new_room();
    pid_t pids[5];

    for (int i = 0; i < 5; i++)
        pids[i] = child_start(wait_once, room);
    cr_assert(becomes_true(five_wait, room));
    cr_assert_eq(notify(room, 2), 2);
    cr_assert(becomes_true(two_are_notified, room));
    cr_assert_eq(notify(room, UINT64_MAX), 3);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(child_result(pids[i]), 0);
}

Test(condition, a_killed_waiter_swallows_no_notification)
{
    struct room *room = new_room();
    pid_t victim = child_start(wait_once, room);
    struct dragon_condition_waiter *waiter;

    cr_assert(becomes_true(one_waits, room));
    waiter = enter(room); /* behind the victim */
    child_kill(victim);
    cr_assert_eq(notify(room, 1), 1);
    cr_assert(dragon_condition_is_notified(waiter));
}

Test(condition, notify_all_counts_the_living_only)
{
    struct room *room = new_room();
    pid_t victim = child_start(wait_once, room);

    cr_assert(becomes_true(one_waits, room));
    enter(room);
    enter(room);
    child_kill(victim);
    cr_assert_eq(notify(room, UINT64_MAX), 2);
}

Test(condition, the_entries_of_killed_waiters_are_used_again)
{
    struct room *room = new_room();

    for (int i = 0; i < 3 * DRAGON_CONDITION_N_INLINE; i++) {
        uint64_t n_before = n_waiting(room);
        pid_t victim = child_start(wait_once, room);
        int64_t deadline_ns = test_soon();

        /* Once all entries are dead waiters', the number does not grow. */
        while (n_waiting(room) == n_before && n_before < DRAGON_CONDITION_N_INLINE &&
               !dragon_deadline_passed(deadline_ns))
            usleep(200);
        cr_assert_eq(child_kill(victim), 256 + SIGKILL);
    }
    enter(room); /* without a pool: into an entry of the dead */
}

struct table {
    struct room room;
    _Atomic uint32_t lock; /* the users' lock, a simple one */
    uint32_t turn;
};

static void lock(struct table *table)
{
    uint32_t free = 0;

    while (!dragon_replace(&table->lock, &free, 1)) {
        free = 0;
        usleep(10);
    }
}

static int take_turns(struct table *table, uint32_t me)
{
    struct dragon_condition *condition = &table->room.condition;

    for (int i = 0; i < 1000; i++) {
        lock(table);
        while (table->turn != me) {
            struct dragon_condition_waiter *waiter;
            int r;

            if (dragon_condition_enter(condition, NULL, &waiter) < 0)
                return 1;
            dragon_publish(&table->lock, 0);
            r = dragon_condition_wait(waiter, test_soon());
            dragon_condition_leave(waiter);
            lock(table);
            if (r != 0)
                return 2;
        }
        table->turn = (me + 1) % 2;
        dragon_condition_notify(condition, NULL, 1);
        dragon_publish(&table->lock, 0);
    }
    return 0;
}

static int ping(void *table)
{
    return take_turns(table, 0);
}

static int pong(void *table)
{
    return take_turns(table, 1);
}

Test(condition, two_processes_take_turns)
{
    struct table *table = shared_page(sizeof *table);
    pid_t a, b;

    cr_assert_eq(dragon_condition_init(&table->room.condition), 0);
    a = child_start(ping, table);
    b = child_start(pong, table);
    cr_assert_eq(child_result(a), 0);
    cr_assert_eq(child_result(b), 0);
}
