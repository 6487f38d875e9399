#include "support/shared_page.h"
#include "wait/doorbell.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(doorbell, .timeout = 60);

static int count_bits(const uint64_t ready[DRAGON_DOORBELL_WORDS])
{
    int n = 0;

    for (int i = 0; i < DRAGON_DOORBELL_WORDS; i++)
        n += __builtin_popcountll(ready[i]);
    return n;
}

static bool has_bit(const uint64_t ready[DRAGON_DOORBELL_WORDS], unsigned bit)
{
    return ready[bit / 64] >> bit % 64 & 1;
}

static struct dragon_doorbell *new_doorbell(void)
{
    struct dragon_doorbell *doorbell = shared_page(4096);

    dragon_doorbell_init(doorbell);
    return doorbell;
}

Test(doorbell, every_bit_can_be_rung_and_is_taken_alone)
{
    struct dragon_doorbell *doorbell = new_doorbell();
    uint64_t ready[DRAGON_DOORBELL_WORDS];

    for (unsigned bit = 0; bit < DRAGON_DOORBELL_BITS; bit++) {
        dragon_doorbell_ring(doorbell, bit);
        dragon_doorbell_wait(doorbell, false, ready);
        cr_assert_eq(count_bits(ready), 1);
        cr_assert(has_bit(ready, bit));
    }
}

Test(doorbell, rings_before_the_wait_are_taken_together_and_count_once)
{
    struct dragon_doorbell *doorbell = new_doorbell();
    uint64_t ready[DRAGON_DOORBELL_WORDS];

    dragon_doorbell_ring(doorbell, 3);
    dragon_doorbell_ring(doorbell, 200);
    dragon_doorbell_ring(doorbell, 3);
    dragon_doorbell_wait(doorbell, false, ready);
    cr_assert_eq(count_bits(ready), 2);
    cr_assert(has_bit(ready, 3) && has_bit(ready, 200));
}

Test(doorbell, an_owner_who_looks_again_returns_with_no_bit)
{
    struct dragon_doorbell *doorbell = new_doorbell();
    int64_t begin_ns = dragon_now_ns();
    uint64_t ready[DRAGON_DOORBELL_WORDS];

    dragon_doorbell_wait(doorbell, true, ready);
    cr_assert_eq(count_bits(ready), 0);
    cr_assert_geq(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS);
    cr_assert_leq(dragon_now_ns() - begin_ns, 5 * DRAGON_EVENTCOUNT_PARK_NS);
}

static int ring_last_bit(void *doorbell)
{
    dragon_doorbell_ring(doorbell, DRAGON_DOORBELL_BITS - 1);
    return 0;
}

Test(doorbell, another_process_wakes_the_owner)
{
    struct dragon_doorbell *doorbell = new_doorbell();
    pid_t child = child_start(ring_last_bit, doorbell);
    uint64_t ready[DRAGON_DOORBELL_WORDS];

    dragon_doorbell_wait(doorbell, false, ready);
    cr_assert(has_bit(ready, DRAGON_DOORBELL_BITS - 1));
    cr_assert_eq(child_result(child), 0);
}

#define N_RINGERS 4
#define N_RINGS 20000

struct ringer {
    struct dragon_doorbell *doorbell;
    _Atomic uint64_t *n_wanted; /* per ringer */
    unsigned bit;
};

static void *ring_often(void *argument)
{
    struct ringer *ringer = argument;

    for (int i = 0; i < N_RINGS; i++) {
        dragon_fetch_add(&ringer->n_wanted[ringer->bit], 1);
        dragon_doorbell_ring(ringer->doorbell, ringer->bit);
    }
    return NULL;
}

/* After a ring the owner must come to see what was written before it. */
Test(doorbell, no_ring_of_several_threads_is_lost)
{
    struct dragon_doorbell *doorbell = new_doorbell();
    _Atomic uint64_t n_wanted[N_RINGERS] = {0};
    uint64_t n_seen[N_RINGERS] = {0}, ready[DRAGON_DOORBELL_WORDS];
    struct ringer ringers[N_RINGERS];
    pthread_t threads[N_RINGERS];
    int n_finished = 0;

    for (unsigned i = 0; i < N_RINGERS; i++) {
        ringers[i] = (struct ringer){doorbell, n_wanted, i};
        pthread_create(&threads[i], NULL, ring_often, &ringers[i]);
    }
    while (n_finished < N_RINGERS) {
        dragon_doorbell_wait(doorbell, false, ready);
        n_finished = 0;
        for (unsigned i = 0; i < N_RINGERS; i++) {
            if (has_bit(ready, i))
                n_seen[i] = dragon_observe(&n_wanted[i]);
            n_finished += n_seen[i] == N_RINGS;
        }
    }
    for (int i = 0; i < N_RINGERS; i++)
        pthread_join(threads[i], NULL);
}
