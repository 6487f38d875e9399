/* Channels are destroyed under those who send, receive, wait, watch and poll, until
 * the time is up: stress_destroy SEED SECONDS. Everybody comes back, and nothing is
 * left. Also a program for the thread sanitizer. */
#include "base/deadline.h"
#include "channel/channel.h"
#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/stress.h"
#include "wait/doorbell.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LONGEST_LIFE_US 2000
#define HOLDER DRAGON_HOLDER_FIRST_SLOT

static struct channel_fixture fixture;
static struct dragon_channel *channel = &fixture.channel;

struct worker {
    struct seed seed;
    struct dragon_handle doorbell; /* of the poller */
};

/* Only the destroying may end these waits. */
static int64_t late(void)
{
    return dragon_deadline_after_ns(60 * DRAGON_NS_PER_S);
}

static bool goes_on(int r)
{
    if (r == DRAGON_CHANNEL_DESTROYED || dragon_channel_is_destroyed(channel))
        return false;
    require(r == 0 || r == DRAGON_CHANNEL_FULL || r == DRAGON_CHANNEL_EMPTY ||
            r == DRAGON_CHANNEL_BUSY);
    return true;
}

static int send_one(struct worker *worker)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle block = {0};
    int r;

    if (seed_below(&worker->seed, 3) == 0)
        require(attach_block(fixture.pool, 1 + seed_below(&worker->seed, 5000), HOLDER, &message,
                             &block) == 0);
    r = seed_below(&worker->seed, 4) == 0 ? dragon_channel_try_send(channel, &message)
                                          : dragon_channel_send(channel, &message, late());
    if (r != 0 && block.generation)
        require(dragon_pool_free(fixture.pool, &block) == 0);
    return r;
}

static void *send_until_destroyed(void *argument)
{
    while (goes_on(send_one(argument)))
        ;
    return NULL;
}

static int receive_one(struct worker *worker)
{
    struct dragon_message message;
    struct dragon_handle block;
    uint64_t size_bytes;
    int r = seed_below(&worker->seed, 4) == 0
                ? dragon_channel_try_receive(channel, HOLDER + 1, &message)
                : dragon_channel_receive(channel, HOLDER + 1, &message, late());

    if (r != 0 || !dragon_message_has_block(&message))
        return r;
    require(dragon_pool_find(fixture.pool, message.block_offset, &block, &size_bytes) == 0);
    require(block.generation == message.block_generation);
    require(dragon_pool_free(fixture.pool, &block) == 0);
    return 0;
}

static void *receive_until_destroyed(void *argument)
{
    while (goes_on(receive_one(argument)))
        ;
    return NULL;
}

static void *wait_until_destroyed(void *argument)
{
    (void)argument;
    while (goes_on(dragon_channel_wait(channel, late())))
        ;
    return NULL;
}

static void *watch_until_destroyed(void *argument)
{
    struct worker *worker = argument;

    while (
        goes_on(dragon_channel_watch(channel, 1 + (unsigned)seed_below(&worker->seed, 15), late())))
        ;
    return NULL;
}

/* As a thread does that waits for many channels: arm, look, sleep on the doorbell. */
static void *poll_until_destroyed(void *argument)
{
    struct worker *worker = argument;
    struct dragon_doorbell *doorbell = dragon_pool_at(fixture.pool, worker->doorbell.offset);
    uint64_t ready[DRAGON_DOORBELL_WORDS];

    for (;;) {
        require(dragon_channel_arm(channel, worker->doorbell.offset, 7));
        if (dragon_channel_is_destroyed(channel))
            break;
        if (!dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_MESSAGE))
            dragon_doorbell_wait(doorbell, true, ready);
    }
    dragon_channel_disarm(channel, worker->doorbell.offset, 7);
    return NULL;
}

static struct dragon_handle new_doorbell(void)
{
    struct dragon_handle handle;

    require(dragon_pool_alloc(fixture.pool, sizeof(struct dragon_doorbell), HOLDER, &handle) == 0);
    dragon_doorbell_init(dragon_pool_at(fixture.pool, handle.offset));
    return handle;
}

static void *(*const roles[])(void *) = {
    send_until_destroyed, send_until_destroyed,  receive_until_destroyed, receive_until_destroyed,
    wait_until_destroyed, watch_until_destroyed, poll_until_destroyed,
};
#define N_ROLES (sizeof roles / sizeof *roles)

static void run_round(struct seed *seed)
{
    static const uint64_t limits[] = {1, 2, 50, DRAGON_CHANNEL_UNBOUNDED};
    struct worker workers[N_ROLES] = {0};
    pthread_t threads[N_ROLES];

    channel_fixture_open(&fixture, UINT64_C(256) << 20, limits[seed_below(seed, 4)],
                         seed_below(seed, 2) ? DRAGON_CHANNEL_UNBOUNDED : 20000);
    for (size_t i = 0; i < N_ROLES; i++) {
        workers[i] = (struct worker){seed_from(seed_next(seed)), new_doorbell()};
        pthread_create(&threads[i], NULL, roles[i], &workers[i]);
    }
    usleep((useconds_t)seed_below(seed, LONGEST_LIFE_US));
    require(dragon_channel_destroy(channel));
    for (size_t i = 0; i < N_ROLES; i++)
        pthread_join(threads[i], NULL);
    require(!dragon_channel_destroy(channel));
    require(dragon_channel_check(channel));
    require(channel_fixture_blocks_left(&fixture) == N_ROLES); /* the doorbells */
    require(dragon_pool_check(fixture.pool));
    dragon_pool_close(fixture.pool);
}

int main(int argc, char **argv)
{
    int n = stress_run(argc, argv, run_round);

    printf("stress_destroy: %d channels\n", n);
    return 0;
}
