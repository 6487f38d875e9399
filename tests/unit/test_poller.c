#include "base/deadline.h"
#include "channel/channel.h"
#include "memory/pool.h"
#include "node/node.h"
#include "support/channel_fixture.h"
#include "support/shared_page.h"
#include "wait/doorbell.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>

static struct dragon_node *node;

static void open_node(void)
{
    struct dragon_node_options options = {.attach_fd = -1, .start_threads = true};

    cr_assert_eq(dragon_node_open(&options, &node), 0);
    cr_assert_not_null(dragon_node_current());
}

TestSuite(poller, .timeout = 60, .init = open_node);

static void open_channel(struct dragon_channel *channel)
{
    struct dragon_channel_options options = {DRAGON_CHANNEL_UNBOUNDED, DRAGON_CHANNEL_UNBOUNDED};
    struct dragon_object object;

    cr_assert_eq(dragon_object_create(dragon_node_pool(node), DRAGON_CHANNEL_KIND,
                                      sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                                      &object),
                 0);
    cr_assert_eq(dragon_channel_init(&object, &options), 0);
    cr_assert_eq(dragon_channel_open(channel, &object), 0);
}

static struct dragon_poller *open_poller(struct dragon_channel *channel)
{
    struct dragon_poller *poller;

    cr_assert_eq(dragon_poller_open(node, channel, &poller), 0);
    return poller;
}

static bool is_readable(struct dragon_poller *poller, int timeout_ms)
{
    struct pollfd item = {.fd = dragon_poller_fd(poller), .events = POLLIN};

    return poll(&item, 1, timeout_ms) == 1 && item.revents == POLLIN;
}

static int send_one(void *channel)
{
    return send_number(channel, 1);
}

static void receive_one(struct dragon_channel *channel)
{
    uint64_t number;

    cr_assert_eq(receive_number(channel, &number), 0);
}

static int destroy(void *channel)
{
    return dragon_channel_destroy(channel) ? 0 : 1;
}

Test(poller, is_readable_for_good_once_another_process_destroyed_the_channel)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    poller = open_poller(&channel);
    cr_assert_not(is_readable(poller, 0));
    cr_assert_eq(child_result(child_start(destroy, &channel)), 0);
    cr_assert(is_readable(poller, 20000));
    dragon_poller_update(poller);
    cr_assert(is_readable(poller, 0));
    dragon_poller_close(poller);
    poller = open_poller(&channel);
    cr_assert(is_readable(poller, 0), "also for who comes later");
    dragon_poller_close(poller);
}

Test(poller, is_readable_exactly_while_there_are_messages)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    poller = open_poller(&channel);
    for (int i = 0; i < 3; i++) {
        cr_assert_not(is_readable(poller, 0));
        cr_assert_eq(send_number(&channel, 1), 0);
        cr_assert_eq(send_number(&channel, 2), 0);
        cr_assert(is_readable(poller, 5000));
        receive_one(&channel);
        dragon_poller_update(poller);
        cr_assert(is_readable(poller, 0));
        receive_one(&channel);
        dragon_poller_update(poller);
    }
    dragon_poller_close(poller);
}

Test(poller, messages_of_another_process_make_it_readable_without_delay)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    poller = open_poller(&channel);
    for (int i = 0; i < 3; i++) {
        int64_t begin_ns = dragon_now_ns();

        cr_assert_eq(child_result(child_start(send_one, &channel)), 0);
        cr_assert(is_readable(poller, 5000));
        cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS / 2);
        receive_one(&channel);
        dragon_poller_update(poller);
    }
    dragon_poller_close(poller);
}

Test(poller, messages_that_came_before_it_count)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    cr_assert_eq(send_number(&channel, 1), 0);
    poller = open_poller(&channel);
    cr_assert(is_readable(poller, 0));
    dragon_poller_close(poller);
}

Test(poller, only_the_channel_with_messages_is_readable)
{
    struct dragon_channel channels[10];
    struct dragon_poller *pollers[10];

    for (int i = 0; i < 10; i++) {
        open_channel(&channels[i]);
        pollers[i] = open_poller(&channels[i]);
    }
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(send_number(&channels[i], 1), 0);
        cr_assert(is_readable(pollers[i], 5000));
        for (int j = i + 1; j < 10; j++)
            cr_assert_not(is_readable(pollers[j], 0));
    }
    for (int i = 0; i < 10; i++)
        dragon_poller_close(pollers[i]);
}

Test(poller, more_of_them_than_a_channel_or_a_doorbell_has_room_for_all_learn)
{
    enum { N = DRAGON_DOORBELL_BITS + 20 };
    static struct dragon_poller *pollers[N];
    struct dragon_channel channel, other;

    open_channel(&channel);
    open_channel(&other);
    for (int i = 0; i < N; i++)
        pollers[i] = open_poller(i % 16 ? &other : &channel);
    cr_assert_eq(send_number(&channel, 1), 0);
    for (int i = 0; i < N; i++)
        if (i % 16 == 0)
            cr_assert(is_readable(pollers[i], 5000));
    for (int i = 0; i < N; i++) {
        if (i % 16)
            cr_assert_not(is_readable(pollers[i], 0));
        dragon_poller_close(pollers[i]);
    }
}

Test(poller, closing_one_leaves_another_of_the_same_channel)
{
    struct dragon_poller *first, *second;
    struct dragon_channel channel;

    open_channel(&channel);
    first = open_poller(&channel);
    second = open_poller(&channel);
    dragon_poller_close(first);
    cr_assert_eq(send_number(&channel, 1), 0);
    cr_assert(is_readable(second, 5000));
    dragon_poller_close(second);
}

static int close_inherited(void *poller)
{
    dragon_poller_update(poller);
    dragon_poller_close(poller);
    return 0;
}

Test(poller, a_forked_copy_may_close_an_inherited_one)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    poller = open_poller(&channel);
    cr_assert_eq(child_result(child_start(close_inherited, poller)), 0);
    cr_assert_eq(send_number(&channel, 1), 0);
    cr_assert(is_readable(poller, 5000));
    dragon_poller_close(poller);
}

static int open_own(void *argument)
{
    struct dragon_channel *channel = argument;
    struct dragon_poller *poller;

    if (dragon_poller_open(dragon_node_current(), channel, &poller) != 0 || is_readable(poller, 0))
        return 1;
    if (send_number(channel, 1) != 0 || !is_readable(poller, 5000))
        return 2;
    dragon_poller_close(poller);
    return 0;
}

Test(poller, a_forked_copy_can_have_its_own)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    poller = open_poller(&channel);
    cr_assert_eq(child_result(child_start(open_own, &channel)), 0);
    cr_assert(is_readable(poller, 5000));
    dragon_poller_close(poller);
}

static int arm_and_die(void *argument)
{
    struct dragon_poller *poller;

    for (int i = 0; i < DRAGON_CHANNEL_N_POLLERS; i++)
        if (dragon_poller_open(dragon_node_current(), argument, &poller) != 0)
            return 1;
    kill(getpid(), SIGKILL);
    return 2;
}

Test(poller, entries_of_a_killed_process_do_not_keep_others_from_learning)
{
    struct dragon_channel channel;
    struct dragon_poller *poller;

    open_channel(&channel);
    cr_assert_eq(child_result(child_start(arm_and_die, &channel)), 256 + SIGKILL);
    poller = open_poller(&channel);
    cr_assert_eq(send_number(&channel, 1), 0);
    cr_assert(is_readable(poller, 5000));
    dragon_poller_close(poller);
}
