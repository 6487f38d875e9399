/* A barrier with a roll breaks when a party is killed that is awaited, wherever that happens, and
 * whoever dies while it is told; and for nothing else. */
#include "channel/in_flight.h"
#include "memory/pool.h"
#include "support/test_point.h"
#include "sync/barrier.h"

#include <criterion/criterion.h>

#define KIND DRAGON_KIND('T', 'E', 'S', 'T')
#define OURS DRAGON_HOLDER_FIRST_SLOT
#define VICTIM (DRAGON_HOLDER_FIRST_SLOT + 1)
#define OTHER (DRAGON_HOLDER_FIRST_SLOT + 2)

static struct dragon_pool *pool;
static struct dragon_object object; /* in our name */
static _Atomic int *n_passed;

static const struct dragon_end death = {.process = 1, .death = DRAGON_DEATH_BIT};
static const struct dragon_end clean_end = {.process = 1};

static void make_barrier(void)
{
    n_passed = shared_page(4096);
    cr_assert_eq(dragon_pool_create_managed(1 << 20, 7, 1, &pool), 0);
    cr_assert_eq(dragon_object_create(pool, KIND, sizeof(struct dragon_barrier), OURS, &object), 0);
    cr_assert_eq(dragon_barrier_init(object.state, 3), 0);
    dragon_object_begins_with(&object, DRAGON_BARRIER_KIND);
}

TestSuite(killed_in_barrier, .timeout = 60, .init = make_barrier);

/* ---- parties: processes that come as often as they are told ---- */

struct party {
    uint32_t holder;
    int n_times;
    bool stays; /* afterwards it sleeps, to be killed */
};

static int come(struct dragon_object *own)
{
    struct dragon_barrier_place place;
    int r = dragon_barrier_arrive(own->state, own, false, test_soon(), &place);

    if (r == DRAGON_BARRIER_LAST)
        return 0;
    return r == 0 ? dragon_barrier_wait(own->state, &place, test_soon()) : r;
}

static int take_part(void *argument)
{
    const struct party *party = argument;
    struct dragon_object own;
    int r = dragon_object_open(pool, &object.handle, KIND, sizeof(struct dragon_barrier),
                               party->holder, &own);

    for (int i = 0; r == 0 && i < party->n_times; i++) {
        r = come(&own);
        if (r == 0)
            atomic_fetch_add(n_passed, 1);
    }
    while (party->stays)
        pause();
    return r;
}

static const struct party victim = {VICTIM, 1, true};
static const struct party witness = {OTHER, 2, false};

static bool as_many_wait(void *n)
{
    return dragon_barrier_n_waiting(object.state) == *(const uint32_t *)n;
}

static void await_waiting(uint32_t n)
{
    cr_assert(becomes_true(as_many_wait, &n));
}

static bool as_many_passed(void *n)
{
    return atomic_load(n_passed) == *(const int *)n;
}

static void await_passed(int n)
{
    cr_assert(becomes_true(as_many_passed, &n));
}

static void bury(const struct dragon_end *end)
{
    cr_assert_eq(dragon_in_flight_bury(pool, VICTIM, end), 0);
}

static int pass(void)
{
    return come(&object);
}

/* Another one that waits when the barrier breaks, or goes on as it is told. */
static pid_t start_witness(int n_times)
{
    static struct party party;

    party = witness;
    party.n_times = n_times;
    return child_start(take_part, &party);
}

/* ---- where the victim is killed ---- */

Test(killed_in_barrier, a_party_killed_while_it_waits_breaks_it)
{
    pid_t dead = child_start(take_part, (void *)&victim), waiter;

    await_waiting(1);
    waiter = start_witness(1);
    await_waiting(2);
    child_kill(dead);
    cr_assert_not(dragon_barrier_is_broken(object.state), "nobody was told yet");
    bury(&death);
    cr_assert_eq(child_result(waiter), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(pass(), DRAGON_BARRIER_BROKEN);
}

Test(killed_in_barrier, a_party_killed_before_it_is_counted_breaks_it)
{
    pid_t waiter = start_witness(1);

    await_waiting(1);
    cr_assert(child_dies_at("barrier-noted", take_part, (void *)&victim));
    bury(&death);
    cr_assert_eq(child_result(waiter), DRAGON_BARRIER_BROKEN);
}

Test(killed_in_barrier, a_party_killed_after_it_passed_breaks_the_next_round)
{
    pid_t dead = child_start(take_part, (void *)&victim), waiter = start_witness(2);

    await_waiting(2);
    cr_assert_eq(pass(), 0);
    await_passed(2);
    await_waiting(1);
    child_kill(dead);
    bury(&death);
    cr_assert_eq(child_result(waiter), DRAGON_BARRIER_BROKEN);
}

Test(killed_in_barrier, a_party_killed_two_rounds_later_breaks_nothing)
{
    pid_t dead = child_start(take_part, (void *)&victim);
    struct party others[2] = {{OTHER, 2, false}, {OTHER + 1, 1, false}};
    pid_t pids[2];

    await_waiting(1);
    pids[0] = child_start(take_part, &others[0]);
    await_waiting(2);
    cr_assert_eq(pass(), 0);
    await_passed(2);
    await_waiting(1);
    pids[1] = child_start(take_part, &others[1]); /* in the place of the victim */
    await_waiting(2);
    cr_assert_eq(pass(), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(child_result(pids[i]), 0);
    child_kill(dead);
    bury(&death);
    cr_assert_not(dragon_barrier_is_broken(object.state));
}

Test(killed_in_barrier, a_process_that_only_had_it_open_breaks_nothing)
{
    static const struct party idle = {VICTIM, 0, true};

    child_kill(child_start(take_part, (void *)&idle));
    bury(&death);
    cr_assert_not(dragon_barrier_is_broken(object.state));
}

Test(killed_in_barrier, a_clean_end_breaks_nothing)
{
    pid_t gone = child_start(take_part, (void *)&victim);

    await_waiting(1);
    child_kill(gone); /* but it is said to have left */
    bury(&clean_end);
    cr_assert_not(dragon_barrier_is_broken(object.state));
    cr_assert_eq(dragon_barrier_n_waiting(object.state), 1);
}

Test(killed_in_barrier, a_process_with_parties_in_two_rounds_breaks_the_later_one)
{
    struct dragon_barrier_place slow, fast;
    struct dragon_object two;

    cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, 128, VICTIM, &two), 0);
    dragon_barrier_arrive(two.state, &two, false, DRAGON_AT_ONCE, &slow);
    dragon_barrier_arrive(two.state, &two, false, DRAGON_AT_ONCE, &fast);
    cr_assert_eq(pass(), 0);
    dragon_barrier_arrive(two.state, &two, false, DRAGON_AT_ONCE, &fast);
    cr_assert_eq(dragon_object_keep(&two, VICTIM), 0, "a use more keeps the note");
    bury(&death);
    cr_assert_eq(dragon_barrier_wait(two.state, &slow, DRAGON_AT_ONCE), 0);
    cr_assert_eq(dragon_barrier_wait(two.state, &fast, DRAGON_AT_ONCE), DRAGON_BARRIER_BROKEN);
}

Test(killed_in_barrier, many_processes_are_on_the_roll)
{
    enum { N = 40 };
    struct dragon_barrier_place places[N];
    struct dragon_object parties[N];

    cr_assert_eq(dragon_barrier_init(object.state, N + 1), 0);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(dragon_object_open(pool, &object.handle, KIND, 128, OTHER + i, &parties[i]),
                     0);
        cr_assert_eq(
            dragon_barrier_arrive(parties[i].state, &parties[i], false, DRAGON_AT_ONCE, &places[i]),
            0);
    }
    cr_assert_eq(dragon_in_flight_bury(pool, OTHER + N - 1, &death), 0);
    cr_assert(dragon_barrier_is_broken(object.state));
    dragon_barrier_reset(object.state);
    cr_assert_eq(dragon_in_flight_bury(pool, OTHER + N - 2, &death), 0);
    cr_assert(dragon_barrier_is_broken(object.state), "resets do not count as generations");
}

/* ---- who tells of it, or mends it, is killed ---- */

static int sweep(void *argument)
{
    (void)argument;
    return dragon_in_flight_bury(pool, VICTIM, &death);
}

static void kill_sweeper_at(const char *point)
{
    pid_t dead = child_start(take_part, (void *)&victim), waiter;

    await_waiting(1);
    waiter = start_witness(1);
    await_waiting(2);
    child_kill(dead);
    cr_assert(child_dies_at(point, sweep, NULL), "%s", point);
    bury(&death); /* as the next one does */
    cr_assert_eq(child_result(waiter), DRAGON_BARRIER_BROKEN);
    cr_assert(dragon_barrier_is_broken(object.state));
}

Test(killed_in_barrier, it_breaks_although_the_sweeper_died_before_it_woke_those_who_wait)
{
    kill_sweeper_at("barrier-broken-by-death");
}

Test(killed_in_barrier, it_breaks_although_the_sweeper_died_after_it_told)
{
    kill_sweeper_at("object-told-of-end");
}

Test(killed_in_barrier, it_breaks_although_the_sweeper_died_before_it_took_the_party_out)
{
    kill_sweeper_at("object-before-take-out");
}

static int reset(void *argument)
{
    dragon_barrier_reset(argument);
    return 0;
}

Test(killed_in_barrier, those_who_wait_are_sent_away_although_the_resetter_died_before_it_woke_them)
{
    pid_t waiter = start_witness(1);
    int64_t begin_ns;

    await_waiting(1);
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("barrier-reset", reset, object.state));
    cr_assert_eq(child_result(waiter), DRAGON_BARRIER_BROKEN);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
    cr_assert_not(dragon_barrier_is_broken(object.state));
}
