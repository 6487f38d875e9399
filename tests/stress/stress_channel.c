/* Threads over one channel until the time is up: stress_channel SEED SECONDS.
 * Senders and receivers come and go; nothing is lost, doubled or out of order.
 * Also a program for the thread sanitizer. */
#include "base/deadline.h"
#include "channel/channel.h"
#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/stress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define N_SENDERS 3
#define N_RECEIVERS 3
#define N_EACH 2000
#define STOP UINT64_MAX

static struct channel_fixture fixture;

struct worker {
    uint64_t number;
    struct seed seed;
    uint64_t next[N_SENDERS]; /* per sender: no smaller number may come any more */
    uint64_t n_received;
};

static int64_t soon(void)
{
    return dragon_deadline_after_ns(60 * DRAGON_NS_PER_S);
}

/* With or without a block, by trying or by waiting. */
static void send_as_may_be(struct worker *worker, uint64_t number)
{
    struct dragon_message message = message_of(number);
    struct dragon_handle handle;
    int r = DRAGON_CHANNEL_BUSY;

    if (seed_below(&worker->seed, 4) == 0) {
        r = attach_block(fixture.pool, 1 + seed_below(&worker->seed, 30000),
                         DRAGON_HOLDER_FIRST_SLOT + (uint32_t)worker->number, &message, &handle);
        require(r == 0);
        memcpy(dragon_pool_at(fixture.pool, handle.offset), &number, 1);
        r = DRAGON_CHANNEL_BUSY;
    }
    if (seed_below(&worker->seed, 2))
        r = dragon_channel_try_send(&fixture.channel, &message);
    if (r == DRAGON_CHANNEL_BUSY || r == DRAGON_CHANNEL_FULL)
        r = dragon_channel_send(&fixture.channel, &message, soon());
    require(r == 0);
}

static void *send_all(void *argument)
{
    struct worker *worker = argument;

    for (uint64_t i = 0; i < N_EACH; i++)
        send_as_may_be(worker, worker->number << 32 | i);
    return NULL;
}

static void take_block(const struct dragon_message *message)
{
    struct dragon_handle handle;
    uint64_t size_bytes;

    if (!dragon_message_has_block(message))
        return;
    require(dragon_pool_find(fixture.pool, message->block_offset, &handle, &size_bytes) == 0);
    require(handle.generation == message->block_generation);
    require(*(unsigned char *)dragon_pool_at(fixture.pool, handle.offset) ==
            (unsigned char)number_in(message));
    require(dragon_pool_free(fixture.pool, &handle) == 0);
}

static int receive_as_may_be(struct worker *worker, struct dragon_message *message_out)
{
    int r = DRAGON_CHANNEL_BUSY;

    if (seed_below(&worker->seed, 3) == 0)
        require(dragon_channel_wait(&fixture.channel, soon()) == 0);
    if (seed_below(&worker->seed, 2))
        r = dragon_channel_try_receive(&fixture.channel, DRAGON_HOLDER_NONE, message_out);
    if (r == DRAGON_CHANNEL_BUSY || r == DRAGON_CHANNEL_EMPTY)
        r = dragon_channel_receive(&fixture.channel, DRAGON_HOLDER_NONE, message_out, soon());
    return r;
}

static void *receive_all(void *argument)
{
    struct worker *worker = argument;
    struct dragon_message message;

    for (;;) {
        uint64_t number;

        require(receive_as_may_be(worker, &message) == 0);
        require(dragon_channel_done(&fixture.channel) == 0);
        number = number_in(&message);
        if (number == STOP)
            return NULL;
        take_block(&message);
        require((uint32_t)number >= worker->next[number >> 32]);
        worker->next[number >> 32] = (uint32_t)number + 1;
        worker->n_received++;
    }
}

static void run_round(struct seed *seed)
{
    static const uint64_t limits[] = {1, 2, 50, 1000, DRAGON_CHANNEL_UNBOUNDED};
    struct worker senders[N_SENDERS] = {0}, receivers[N_RECEIVERS] = {0};
    pthread_t threads[N_SENDERS + N_RECEIVERS];
    uint64_t n_received = 0;

    channel_fixture_open(&fixture, UINT64_C(256) << 20, limits[seed_below(seed, 5)],
                         seed_below(seed, 2) ? DRAGON_CHANNEL_UNBOUNDED : 20000);
    for (uint64_t i = 0; i < N_SENDERS; i++) {
        senders[i] = (struct worker){.number = i, .seed = seed_from(seed_next(seed))};
        pthread_create(&threads[i], NULL, send_all, &senders[i]);
    }
    for (uint64_t i = 0; i < N_RECEIVERS; i++) {
        receivers[i].seed = seed_from(seed_next(seed));
        pthread_create(&threads[N_SENDERS + i], NULL, receive_all, &receivers[i]);
    }
    for (int i = 0; i < N_SENDERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N_RECEIVERS; i++) {
        struct dragon_message stop = message_of(STOP);

        require(dragon_channel_send(&fixture.channel, &stop, soon()) == 0);
    }
    require(dragon_channel_join(&fixture.channel, soon()) == 0);
    for (int i = 0; i < N_RECEIVERS; i++) {
        pthread_join(threads[N_SENDERS + i], NULL);
        n_received += receivers[i].n_received;
    }
    require(n_received == N_SENDERS * N_EACH);
    require(dragon_channel_check(&fixture.channel));
    require(channel_fixture_blocks_left(&fixture) == 0);
    require(dragon_pool_check(fixture.pool));
    dragon_pool_close(fixture.pool);
}

int main(int argc, char **argv)
{
    int n = stress_run(argc, argv, run_round);

    printf("stress_channel: %d rounds of %d messages\n", n, N_SENDERS * N_EACH);
    return 0;
}
