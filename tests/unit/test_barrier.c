#include "support/shared_page.h"
#include "sync/barrier.h"

#include <criterion/criterion.h>

TestSuite(barrier, .timeout = 60);

static struct dragon_barrier *new_barrier(uint32_t parties)
{
    struct dragon_barrier *barrier = shared_page(4096);

    cr_assert_eq(dragon_barrier_init(barrier, parties), 0);
    return barrier;
}

static int arrive(struct dragon_barrier *barrier, struct dragon_barrier_place *place_out)
{
    return dragon_barrier_arrive(barrier, NULL, false, DRAGON_FOREVER, place_out);
}

static int arrive_with_action(struct dragon_barrier *barrier,
                              struct dragon_barrier_place *place_out)
{
    return dragon_barrier_arrive(barrier, NULL, true, DRAGON_FOREVER, place_out);
}

static int look(struct dragon_barrier *barrier, const struct dragon_barrier_place *place)
{
    return dragon_barrier_wait(barrier, place, DRAGON_AT_ONCE);
}

Test(barrier, a_barrier_of_one_never_blocks)
{
    struct dragon_barrier *b = new_barrier(1);
    struct dragon_barrier_place place;

    for (int i = 0; i < 3; i++)
        cr_assert_eq(arrive(b, &place), DRAGON_BARRIER_LAST);
    cr_assert_eq(place.index, 0);
}

Test(barrier, the_last_party_releases_all)
{
    struct dragon_barrier *b = new_barrier(3);
    struct dragon_barrier_place first, second, third;

    cr_assert_eq(arrive(b, &first), 0);
    cr_assert_eq(arrive(b, &second), 0);
    cr_assert_eq(dragon_barrier_n_waiting(b), 2);
    cr_assert_eq(look(b, &first), DRAGON_BARRIER_TIMEOUT);
    cr_assert_eq(arrive(b, &third), DRAGON_BARRIER_LAST);
    cr_assert_eq(look(b, &first), 0);
    cr_assert_eq(look(b, &second), 0);
    cr_assert_eq(first.index + 3 * second.index + 9 * third.index, 0 + 3 * 1 + 9 * 2);
    cr_assert_eq(dragon_barrier_n_waiting(b), 0);
}

Test(barrier, the_next_round_may_fill_before_all_have_left)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place slow, other;

    arrive(b, &slow);
    for (int i = 0; i < 15; i++) { /* slow sleeps through 15 rounds */
        cr_assert_eq(arrive(b, &other), DRAGON_BARRIER_LAST);
        cr_assert_eq(arrive(b, &other), 0);
    }
    cr_assert_eq(look(b, &slow), 0);
}

Test(barrier, nobody_is_released_before_the_action_has_ended)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place first, last;

    arrive_with_action(b, &first);
    cr_assert_eq(arrive_with_action(b, &last), DRAGON_BARRIER_LAST);
    cr_assert_eq(look(b, &first), DRAGON_BARRIER_TIMEOUT);
    dragon_barrier_expire(b, &first); /* too late: all are there */
    cr_assert_eq(look(b, &first), DRAGON_BARRIER_TIMEOUT);
    cr_assert_eq(dragon_barrier_finish(b, &last, true), 0);
    cr_assert_eq(look(b, &first), 0);
}

Test(barrier, a_failed_action_breaks_the_barrier)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place first, last;

    arrive_with_action(b, &first);
    arrive_with_action(b, &last);
    cr_assert_eq(dragon_barrier_finish(b, &last, false), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(look(b, &first), DRAGON_BARRIER_BROKEN);
    cr_assert(dragon_barrier_is_broken(b));
}

Test(barrier, who_comes_while_the_action_is_run_waits_for_the_next_round)
{
    struct dragon_barrier *b = new_barrier(1);
    struct dragon_barrier_place leader, late;

    arrive_with_action(b, &leader);
    cr_assert_eq(dragon_barrier_arrive(b, NULL, true, DRAGON_AT_ONCE, &late),
                 DRAGON_BARRIER_TIMEOUT);
    cr_assert_eq(dragon_barrier_finish(b, &leader, true), 0);
    cr_assert_eq(arrive_with_action(b, &late), DRAGON_BARRIER_LAST);
    cr_assert_eq(dragon_barrier_finish(b, &late, true), 0);
}

Test(barrier, a_party_whose_time_is_over_breaks_it_for_all)
{
    struct dragon_barrier *b = new_barrier(3);
    struct dragon_barrier_place impatient, other, late;
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);

    arrive(b, &impatient);
    arrive(b, &other);
    cr_assert_eq(dragon_barrier_wait(b, &impatient, deadline_ns), DRAGON_BARRIER_TIMEOUT);
    dragon_barrier_expire(b, &impatient);
    cr_assert_eq(look(b, &impatient), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(look(b, &other), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(arrive(b, &late), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(dragon_barrier_n_waiting(b), 0);
}

Test(barrier, abort_breaks_it_until_reset)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place before, after;

    arrive(b, &before);
    dragon_barrier_abort(b);
    cr_assert_eq(look(b, &before), DRAGON_BARRIER_BROKEN);
    dragon_barrier_reset(b);
    cr_assert_not(dragon_barrier_is_broken(b));
    cr_assert_eq(look(b, &before), DRAGON_BARRIER_BROKEN); /* however late it looks */
    cr_assert_eq(arrive(b, &after), 0);
}

Test(barrier, reset_turns_those_away_that_wait_and_stays_usable)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place before, first, second;

    arrive(b, &before);
    dragon_barrier_reset(b);
    cr_assert_eq(arrive(b, &first), 0);
    cr_assert_eq(arrive(b, &second), DRAGON_BARRIER_LAST);
    cr_assert_eq(look(b, &before), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(look(b, &first), 0);
}

Test(barrier, a_party_that_withdraws_has_not_arrived)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place place;

    arrive(b, &place);
    dragon_barrier_withdraw(b, &place);
    cr_assert_eq(dragon_barrier_n_waiting(b), 0);
    cr_assert_eq(arrive(b, &place), 0);
}

Test(barrier, withdrawing_from_a_round_that_has_ended_changes_nothing)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place first, second, next;

    arrive(b, &first);
    arrive(b, &second);
    arrive(b, &next);
    dragon_barrier_withdraw(b, &first);
    cr_assert_eq(dragon_barrier_n_waiting(b), 1);
}

Test(barrier, reset_during_the_action_tells_its_leader)
{
    struct dragon_barrier *b = new_barrier(1);
    struct dragon_barrier_place leader, next;

    arrive_with_action(b, &leader);
    dragon_barrier_reset(b);
    /* The first action is still running: a second one does not begin. */
    cr_assert_eq(dragon_barrier_arrive(b, NULL, true, DRAGON_AT_ONCE, &next),
                 DRAGON_BARRIER_TIMEOUT);
    cr_assert_eq(dragon_barrier_finish(b, &leader, true), DRAGON_BARRIER_BROKEN);
    cr_assert_eq(arrive_with_action(b, &next), DRAGON_BARRIER_LAST);
}

Test(barrier, the_number_of_the_round_wraps)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place first, second;

    dragon_publish(&b->phase, UINT64_C(0x3ffffff) << 38); /* the last generation */
    arrive(b, &first);
    cr_assert_eq(arrive(b, &second), DRAGON_BARRIER_LAST);
    cr_assert_eq(look(b, &first), 0);
    arrive(b, &first);
    cr_assert_eq(first.generation, 0);
}

/* ---- several processes ---- */

static int meet_often(void *argument)
{
    struct dragon_barrier *b = argument;

    for (int i = 0; i < 2000; i++) {
        struct dragon_barrier_place place;
        int r = arrive(b, &place);

        if (r == 0)
            r = dragon_barrier_wait(b, &place, test_soon());
        else if (r == DRAGON_BARRIER_LAST)
            r = 0;
        if (r != 0)
            return 1 + r;
    }
    return 0;
}

Test(barrier, processes_meet_again_and_again)
{
    struct dragon_barrier *b = new_barrier(3);
    pid_t pids[3];

    for (int i = 0; i < 3; i++)
        pids[i] = child_start(meet_often, b);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_result(pids[i]), 0);
    cr_assert_eq(dragon_barrier_n_waiting(b), 0);
}

static int lead_and_die(void *argument)
{
    struct dragon_barrier_place place;

    if (arrive_with_action(argument, &place) != DRAGON_BARRIER_LAST)
        return 1;
    kill(getpid(), SIGKILL); /* in the action */
    return 2;
}

Test(barrier, the_death_of_the_leader_in_the_action_breaks_it)
{
    struct dragon_barrier *b = new_barrier(2);
    struct dragon_barrier_place place;

    arrive_with_action(b, &place);
    cr_assert_eq(child_result(child_start(lead_and_die, b)), 256 + SIGKILL);
    cr_assert_eq(dragon_barrier_wait(b, &place, test_soon()), DRAGON_BARRIER_BROKEN);
    cr_assert(dragon_barrier_is_broken(b));
}

static int meet_once(void *argument)
{
    struct dragon_barrier_place place;
    int r = arrive(argument, &place);

    return r == 0 ? dragon_barrier_wait(argument, &place, test_soon()) : r;
}

static bool one_waits(void *barrier)
{
    return dragon_barrier_n_waiting(barrier) == 1;
}

Test(barrier, a_party_killed_while_it_waits_counts_as_arrived)
{
    struct dragon_barrier *b = new_barrier(2);
    pid_t victim = child_start(meet_once, b);
    struct dragon_barrier_place place;

    cr_assert(becomes_true(one_waits, b));
    child_kill(victim);
    cr_assert_eq(arrive(b, &place), DRAGON_BARRIER_LAST);
}
