/* Processes that allocate, send and receive are killed at random moments, again
 * and again. What has to hold in the end is counted message by message. */
#include "channel/in_flight.h"
#include "process/members.h"
#include "support/channel_fixture.h"
#include "support/heap_walk.h"
#include "support/seed.h"
#include "support/shared_page.h"
#include "support/storm.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define N_KILLS 150
#define N_KILLS_A_ROUND 2500      /* then the counting, and new memory, so that ids suffice */
#define N_IDS (UINT64_C(1) << 26) /* memory is touched as it is used */
#define LARGEST_BLOCK_BYTES 100000
#define LONGEST_LIFE_US 8000

/* How long they may take is for meson and ./dev soak to say. */
TestSuite(storm);

enum role { SENDER, RECEIVER, ALLOCATOR, N_ROLES };

struct record {
    _Atomic uint64_t next_id;
    _Atomic int64_t longest_wait_ns; /* in a send or receive */
    _Atomic unsigned char tried[N_IDS], sent[N_IDS], received[N_IDS];
};

static struct channel_fixture fixture;
static struct record *record;
static struct dragon_member own;
static bool has_members; /* who take back what the dead held, the workers included */

struct worker {
    pid_t pid;
    enum role role;
    uint64_t seed;
    uint32_t holder;
};

static unsigned char fill_of(uint64_t id)
{
    return (unsigned char)(id * 7 + 1);
}

/* One in four messages has a block, filled with a byte that follows from its id. */
static int fill_message(uint64_t id, uint32_t holder, struct seed *seed,
                        struct dragon_message *message)
{
    uint64_t size_bytes = 1 + seed_below(seed, LARGEST_BLOCK_BYTES);
    struct dragon_handle handle;
    int r;

    *message = message_of(id);
    if (seed_below(seed, 4) != 0)
        return 0;
    r = attach_block(fixture.pool, size_bytes, holder, message, &handle);
    if (r == 0)
        memset(dragon_pool_at(fixture.pool, handle.offset), fill_of(id), size_bytes);
    return r == DRAGON_POOL_FULL ? 0 : r;
}

static int send_for_ever(const struct worker *worker)
{
    struct seed seed = seed_from(worker->seed);
    struct dragon_message message;

    for (;;) {
        uint64_t id = atomic_fetch_add(&record->next_id, 1);
        int64_t begin_ns;

        while (id >= N_IDS) /* all are used: wait to be killed */
            pause();
        atomic_store(&record->tried[id], 1);
        if (fill_message(id, worker->holder, &seed, &message) != 0)
            return 1;
        begin_ns = dragon_now_ns();
        if (dragon_channel_send(&fixture.channel, &message, test_soon()) != 0)
            return 1;
        storm_note_wait(&record->longest_wait_ns, begin_ns);
        atomic_store(&record->sent[id], 1);
    }
}

/* Free a message's block; false if it is not what its sender made it, or not ours. */
static bool take_block(const struct dragon_message *message, uint32_t holder)
{
    unsigned char *bytes;
    struct dragon_handle handle;
    uint64_t size_bytes;
    uint32_t before;

    if (!dragon_message_has_block(message))
        return true;
    if (dragon_pool_find(fixture.pool, message->block_offset, &handle, &size_bytes) != 0 ||
        handle.generation != message->block_generation ||
        dragon_pool_hold(fixture.pool, &handle, holder, &before) != 0 || before != holder)
        return false;
    bytes = dragon_pool_at(fixture.pool, handle.offset);
    for (uint64_t i = 0; i < size_bytes; i += 97)
        if (bytes[i] != fill_of(number_in(message)))
            return false;
    return dragon_pool_free(fixture.pool, &handle) == 0;
}

static bool take(const struct dragon_message *message, uint32_t holder)
{
    uint64_t id = number_in(message);

    if (message->kind != MESSAGE_KIND || id >= N_IDS)
        return false;
    atomic_fetch_add(&record->received[id], 1);
    return take_block(message, holder);
}

static int receive_for_ever(const struct worker *worker)
{
    struct dragon_message message;

    for (;;) {
        int64_t begin_ns = dragon_now_ns();

        if (dragon_channel_receive(&fixture.channel, worker->holder, &message, test_soon()) != 0)
            return 1;
        storm_note_wait(&record->longest_wait_ns, begin_ns);
        if (!take(&message, worker->holder))
            return 2;
    }
}

static int allocate_for_ever(const struct worker *worker)
{
    struct seed seed = seed_from(worker->seed);
    struct dragon_handle handles[16] = {0};

    for (;;) {
        struct dragon_handle *handle = &handles[seed_below(&seed, 16)];
        uint64_t largest = seed_below(&seed, 4) ? 3000 : LARGEST_BLOCK_BYTES;
        int r;

        if (handle->generation && dragon_pool_free(fixture.pool, handle) != 0)
            return 1;
        if (has_members && seed_below(&seed, 50) == 0)
            (void)dragon_members_sweep(fixture.pool);
        r = dragon_pool_alloc(fixture.pool, seed_below(&seed, largest), worker->holder, handle);
        if (r == DRAGON_POOL_FULL)
            handle->generation = 0;
        else if (r < 0)
            return 2;
    }
}

static int work(void *argument)
{
    struct worker *worker = argument;

    if (has_members)
        worker->holder = dragon_member_holder(&own);
    fixture.channel.holder = worker->holder;
    switch (worker->role) {
    case SENDER:
        return send_for_ever(worker);
    case RECEIVER:
        return receive_for_ever(worker);
    default:
        return allocate_for_ever(worker);
    }
}

static void start(struct worker *worker, struct seed *seed)
{
    worker->seed = seed_next(seed);
    worker->pid = child_start(work, worker);
}

static void take_back(const struct worker *worker)
{
    if (has_members)
        (void)dragon_members_sweep(fixture.pool);
    else
        cr_assert_eq(dragon_in_flight_sweep(fixture.pool, worker->holder, NULL), 0);
}

/* Kill one of the workers and take back what it held. The next one of its role
 * takes its place. */
static void kill_one(struct worker *worker, struct seed *seed)
{
    usleep((useconds_t)seed_below(seed, LONGEST_LIFE_US));
    cr_assert_eq(child_kill(worker->pid), 256 + SIGKILL, "role %d ended before it was killed",
                 worker->role);
    take_back(worker);
    cr_assert(dragon_channel_check(&fixture.channel));
    cr_assert(dragon_pool_check(fixture.pool));
    start(worker, seed);
}

static void receive_the_rest(void)
{
    struct dragon_message message;
    int r;

    while ((r = dragon_channel_receive(&fixture.channel, DRAGON_HOLDER_FIRST_SLOT, &message,
                                       DRAGON_AT_ONCE)) == 0)
        cr_assert(take(&message, DRAGON_HOLDER_FIRST_SLOT));
    cr_assert_eq(r, DRAGON_CHANNEL_EMPTY);
}

/* Count what became of the messages of a round. */
static void count_messages(struct storm_result *result)
{
    uint64_t n = atomic_load(&record->next_id);

    for (uint64_t i = 0; i < n && i < N_IDS; i++) {
        cr_assert(record->tried[i] || !record->received[i], "message %" PRIu64 " is invented", i);
        result->n_messages += record->sent[i];
        result->n_lost += record->sent[i] && !record->received[i];
        result->n_duplicated += record->received[i] > 1;
    }
    if (atomic_load(&record->longest_wait_ns) > result->longest_wait_ns)
        result->longest_wait_ns = atomic_load(&record->longest_wait_ns);
}

static void begin_round(struct worker workers[2 * N_ROLES], uint64_t max_messages,
                        struct seed *seed)
{
    channel_fixture_open(&fixture, UINT64_C(64) << 20, max_messages, DRAGON_CHANNEL_UNBOUNDED);
    cr_assert_eq(dragon_members_init(fixture.pool), 0);
    dragon_member_init(&own, fixture.pool);
    record = shared_page(sizeof *record);
    for (uint32_t i = 0; i < 2 * N_ROLES; i++) {
        workers[i] =
            (struct worker){.role = i % N_ROLES, .holder = DRAGON_HOLDER_FIRST_SLOT + 1 + i};
        start(&workers[i], seed);
    }
}

static void end_round(const struct worker workers[2 * N_ROLES], struct storm_result *result)
{
    for (int i = 0; i < 2 * N_ROLES; i++)
        take_back(&workers[i]);
    receive_the_rest();
    count_messages(result);
    cr_assert(dragon_channel_check(&fixture.channel));
    cr_assert(dragon_pool_check(fixture.pool));
    result->n_blocks_left += channel_fixture_blocks_left(&fixture);
    cr_assert(dragon_pool_check(fixture.pool));
    dragon_pool_close(fixture.pool);
    munmap(record, sizeof *record);
}

/* max_messages keeps the senders from running away from the receivers. Returns
 * how many receivers were killed. */
static uint64_t run_round(uint64_t max_messages, const struct storm_end *end, struct seed *seed,
                          struct storm_result *result)
{
    struct worker workers[2 * N_ROLES];
    uint64_t n_killed[N_ROLES] = {0};

    begin_round(workers, max_messages, seed);
    for (int i = 0; i < N_KILLS_A_ROUND && !storm_is_over(end, result->n_kills); i++) {
        struct worker *worker = &workers[seed_below(seed, 2 * N_ROLES)];

        kill_one(worker, seed);
        n_killed[worker->role]++;
        result->n_kills++;
    }
    for (int i = 0; i < 2 * N_ROLES; i++) {
        cr_assert_eq(child_kill(workers[i].pid), 256 + SIGKILL);
        n_killed[workers[i].role]++;
        result->n_kills++;
    }
    end_round(workers, result);
    return n_killed[RECEIVER];
}

static void run_storm(const char *name, uint64_t max_messages)
{
    struct seed seed = seed_new("storm");
    struct storm_end end = storm_end(N_KILLS);
    struct storm_result result = {.name = name};
    uint64_t n_killed_receivers = 0;

    do
        n_killed_receivers += run_round(max_messages, &end, &seed, &result);
    while (result.n_lost <= n_killed_receivers && !storm_is_over(&end, result.n_kills));
    storm_print(&result);
    cr_assert_leq(result.n_lost, n_killed_receivers, "each receiver has one in hand at the most");
    cr_assert_eq(result.n_duplicated, 0);
    cr_assert_eq(result.n_blocks_left, 0, "every block comes back");
    cr_assert_gt(result.n_messages, 1000, "nothing was tested");
}

/* ---- sweeping a channel that others use ---- */

#define N_AHEAD (64 + 128 + 256) /* three rings, all left meanwhile */
#define N_BEHIND 50
#define N_ROUNDS 2500
#define LATEST_START_NS 25000
#define DEAD (DRAGON_HOLDER_FIRST_SLOT + 1)
#define ALIVE (DRAGON_HOLDER_FIRST_SLOT + 2)

enum { READY = 1, STARTED };

static _Atomic int step;

static bool send_blocks(uint64_t n, uint32_t holder)
{
    struct dragon_handle handle;
    bool sent = true;

    for (uint64_t i = 0; sent && i < n; i++) {
        struct dragon_message message = message_of(i);

        sent = attach_block(fixture.pool, 64, holder, &message, &handle) == 0 &&
               dragon_channel_try_send(&fixture.channel, &message) == 0;
    }
    return sent;
}

static bool receive_blocks(uint64_t n)
{
    struct dragon_message message;
    struct dragon_handle handle;
    uint64_t size_bytes;
    bool received = true;

    for (uint64_t i = 0; received && i < n; i++)
        received =
            dragon_channel_receive(&fixture.channel, ALIVE, &message, 0) == 0 &&
            dragon_pool_find(fixture.pool, message.block_offset, &handle, &size_bytes) == 0 &&
            dragon_pool_free(fixture.pool, &handle) == 0;
    return received;
}

/* Leaves the rings, and writes over the memory of each when it is left and freed. */
static void *receive_what_is_ahead(void *argument)
{
    struct seed *seed = argument;
    struct dragon_handle handle;
    bool received = true;
    int64_t start_ns;

    dragon_publish(&step, READY);
    while (dragon_observe(&step) != STARTED)
        sched_yield();
    start_ns = dragon_now_ns() + (int64_t)seed_below(seed, LATEST_START_NS);
    while (dragon_now_ns() < start_ns)
        ;
    for (uint64_t n_slots = 64; received && n_slots <= 256; n_slots *= 2) {
        received = receive_blocks(n_slots == 64 ? 65 : n_slots) &&
                   dragon_pool_alloc(fixture.pool, 64 + 128 * n_slots, ALIVE, &handle) == 0;
        if (received)
            memset(dragon_pool_at(fixture.pool, handle.offset), 0xff, 64 + 128 * n_slots);
    }
    return received ? &fixture : NULL;
}

static void sweep_beside_a_receiver(struct seed *seed)
{
    uint64_t n_freed = UINT64_MAX;
    void *received;
    pthread_t receiver;

    channel_fixture_open(&fixture, UINT64_C(4) << 20, DRAGON_CHANNEL_UNBOUNDED,
                         DRAGON_CHANNEL_UNBOUNDED);
    cr_assert(send_blocks(N_AHEAD, ALIVE) && send_blocks(N_BEHIND, DEAD));
    pthread_create(&receiver, NULL, receive_what_is_ahead, seed);
    while (dragon_observe(&step) != READY)
        sched_yield();
    dragon_publish(&step, STARTED);
    cr_assert_eq(dragon_in_flight_sweep(fixture.pool, DEAD, &n_freed), 0);
    cr_assert_eq(n_freed, 0);
    pthread_join(receiver, &received);
    cr_assert_not_null(received);
    cr_assert(receive_blocks(N_BEHIND - 1), "they arrive whole");
    dragon_pool_sweep(fixture.pool, ALIVE);
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
    dragon_pool_close(fixture.pool);
}

Test(storm, a_sweep_beside_a_receiver_that_leaves_the_rings_misses_no_message)
{
    struct seed seed = seed_new("storm");

    for (int i = 0; i < N_ROUNDS; i++)
        sweep_beside_a_receiver(&seed);
}

Test(storm, kills_over_a_growing_channel_lose_at_most_what_was_in_hand)
{
    run_storm("messages, growing channel", 2000);
}

Test(storm, kills_over_a_short_channel_lose_at_most_what_was_in_hand)
{
    run_storm("messages, short channel", 5);
}

Test(storm, members_that_are_killed_leave_all_to_those_who_live)
{
    has_members = true;
    run_storm("members of a pool", 50);
}
