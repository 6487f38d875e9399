#include "channel/channel_set.h"
#include "support/channel_fixture.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define MIB (UINT64_C(1) << 20)
#define MESSAGE DRAGON_CHANNEL_EVENT_MESSAGE
#define ROOM DRAGON_CHANNEL_EVENT_ROOM
#define EMPTY DRAGON_CHANNEL_EVENT_EMPTY
#define FULL DRAGON_CHANNEL_EVENT_FULL
#define MOST 200

TestSuite(channel_set, .timeout = 60);

/* Each in a pool of its own. */
static struct channel_fixture fixtures[MOST];
static struct dragon_channel *members[MOST];
static struct dragon_channel_set *set;
static size_t n_members;

static void open_set(size_t n, unsigned events)
{
    n_members = n;
    for (size_t i = 0; i < n; i++) {
        channel_fixture_open(&fixtures[i], MIB, 2, DRAGON_CHANNEL_UNBOUNDED);
        members[i] = &fixtures[i].channel;
    }
    cr_assert_eq(dragon_channel_set_create(members, n, events, &set), 0);
}

static void close_set(void)
{
    dragon_channel_set_close(set);
    for (size_t i = 0; i < n_members; i++) {
        cr_assert_eq(channel_fixture_blocks_left(&fixtures[i]), 0);
        dragon_pool_close(fixtures[i].pool);
    }
}

static int wait_at_once(size_t *index_out, unsigned *events_out)
{
    return dragon_channel_set_wait(set, DRAGON_AT_ONCE, index_out, events_out);
}

static void send(size_t at)
{
    cr_assert_eq(send_number(members[at], at), 0);
}

static void receive(size_t at)
{
    uint64_t number;

    cr_assert_eq(receive_number(members[at], &number), 0);
}

/* A thread that waits, and what it is told. */
static struct {
    pthread_t thread;
    int result;
    size_t index;
    unsigned events;
} waiter;

static void *wait_for_it(void *unused)
{
    do
        waiter.result = dragon_channel_set_wait(set, test_soon(), &waiter.index, &waiter.events);
    while (waiter.result == DRAGON_CHANNEL_SET_INTERRUPTED);
    return unused;
}

static bool is_announced(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < n_members && i < DRAGON_CHANNEL_SET_ASLEEP; i++)
        if (!dragon_eventcount_has_waiters(&members[i]->shared->watchers))
            return false;
    return true;
}

static void start_waiter(void)
{
    pthread_create(&waiter.thread, NULL, wait_for_it, NULL);
    cr_assert(becomes_true(is_announced, NULL));
}

/* What the waiter is told of a change that was made now. */
static void check_woken(int result, size_t index, unsigned events)
{
    int64_t begin_ns = dragon_now_ns();

    pthread_join(waiter.thread, NULL);
    cr_assert_lt(dragon_now_ns() - begin_ns, 9 * TEST_SECOND / 10); /* not a look by itself */
    cr_assert_eq(waiter.result, result);
    cr_assert_eq(waiter.index, index);
    cr_assert_eq(waiter.events, events);
}

/* ---- looking ---- */

Test(channel_set, a_set_without_members_waits_until_its_deadline)
{
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);
    unsigned events;
    size_t index;

    open_set(0, MESSAGE);
    cr_assert_eq(wait_at_once(&index, &events), DRAGON_CHANNEL_SET_NOT_YET);
    cr_assert_eq(dragon_channel_set_wait(set, deadline_ns, &index, &events),
                 DRAGON_CHANNEL_SET_NOT_YET);
    cr_assert(dragon_deadline_passed(deadline_ns));
    close_set();
}

Test(channel_set, what_was_there_before_the_wait_is_reported_as_long_as_it_is_there)
{
    unsigned events = 0;
    size_t index = 9;

    open_set(3, MESSAGE);
    cr_assert_eq(wait_at_once(&index, &events), DRAGON_CHANNEL_SET_NOT_YET);
    send(1);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(wait_at_once(&index, &events), 0);
        cr_assert_eq(index, 1);
        cr_assert_eq(events, MESSAGE);
    }
    receive(1);
    cr_assert_eq(wait_at_once(&index, &events), DRAGON_CHANNEL_SET_NOT_YET);
    close_set();
}

Test(channel_set, members_take_turns)
{
    unsigned events, n_reports[3] = {0};
    size_t index;

    open_set(3, MESSAGE);
    for (size_t i = 0; i < 3; i++)
        send(i);
    for (int i = 0; i < 30; i++) {
        cr_assert_eq(wait_at_once(&index, &events), 0);
        n_reports[index]++;
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(n_reports[i], 10);
    close_set();
}

Test(channel_set, says_which_of_the_events_hold)
{
    unsigned events;
    size_t index;

    open_set(1, MESSAGE | ROOM);
    cr_assert_eq(wait_at_once(&index, &events), 0);
    cr_assert_eq(events, ROOM);
    send(0);
    cr_assert_eq(wait_at_once(&index, &events), 0);
    cr_assert_eq(events, MESSAGE | ROOM);
    send(0);
    cr_assert_eq(wait_at_once(&index, &events), 0);
    cr_assert_eq(events, MESSAGE);
    close_set();
}

/* ---- sleeping ---- */

Test(channel_set, a_message_in_any_member_wakes)
{
    open_set(5, MESSAGE);
    for (size_t at = 0; at < 5; at++) {
        start_waiter();
        send(at);
        check_woken(0, at, MESSAGE);
        receive(at);
    }
    close_set();
}

Test(channel_set, room_emptiness_and_fullness_wake)
{
    static const unsigned after_receive[] = {ROOM, EMPTY};

    for (size_t i = 0; i < 2; i++) {
        open_set(2, after_receive[i]);
        for (size_t at = 0; at < 2; at++)
            for (int n = 0; n < 2; n++)
                send(at);
        if (after_receive[i] == EMPTY)
            receive(1);
        start_waiter();
        receive(1);
        check_woken(0, 1, after_receive[i]);
        close_set();
    }
    open_set(2, FULL);
    send(0);
    start_waiter();
    send(0);
    check_woken(0, 0, FULL);
    close_set();
}

Test(channel_set, a_destroyed_member_is_told)
{
    unsigned events;
    size_t index = 9;

    open_set(3, MESSAGE);
    start_waiter();
    cr_assert(dragon_channel_destroy(members[2]));
    check_woken(DRAGON_CHANNEL_SET_DESTROYED, 2, 0);
    cr_assert_eq(wait_at_once(&index, &events), DRAGON_CHANNEL_SET_DESTROYED);
    send(0);
    send(0);
    cr_assert_eq(wait_at_once(&index, &events), 0);
    cr_assert_eq(index, 0);
    close_set();
}

Test(channel_set, a_member_beyond_those_that_one_sleep_can_have_is_seen)
{
    open_set(MOST, MESSAGE);
    start_waiter();
    send(MOST - 1);
    check_woken(0, MOST - 1, MESSAGE);
    receive(MOST - 1);
    start_waiter();
    send(0);
    check_woken(0, 0, MESSAGE);
    close_set();
}

/* ---- many ---- */

#define N_MESSAGES 20000

static void *send_many(void *at)
{
    for (uint64_t i = 0; i < N_MESSAGES; i++) {
        struct dragon_message message = message_of(i);

        while (dragon_channel_send(at, &message, test_soon()) == DRAGON_CHANNEL_INTERRUPTED)
            ;
    }
    return NULL;
}

Test(channel_set, nothing_is_lost_between_two_senders_and_a_poller)
{
    uint64_t next[2] = {0};
    pthread_t senders[2];
    unsigned events;
    uint64_t number;
    size_t index;

    open_set(2, MESSAGE);
    for (int i = 0; i < 2; i++)
        pthread_create(&senders[i], NULL, send_many, members[i]);
    for (int i = 0; i < 2 * N_MESSAGES; i++) {
        cr_assert_eq(dragon_channel_set_wait(set, test_soon(), &index, &events), 0);
        cr_assert_eq(receive_number(members[index], &number), 0);
        cr_assert_eq(number, next[index]++);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(senders[i], NULL);
    close_set();
}
