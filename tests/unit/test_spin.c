#include "wait/spin.h"

#include <criterion/criterion.h>

TestSuite(spin, .timeout = 60);

/* One wait; what came of it is said, not looked for, so that no clock decides. */
static struct dragon_spin_round wait_once(struct dragon_spin *spin, bool succeeds)
{
    struct dragon_spin_round round = dragon_spin_begin(spin);

    dragon_spin_end(spin, &round, succeeds);
    return round;
}

static bool looks(const struct dragon_spin_round *round)
{
    return round->end_ns != 0;
}

/* Looking was in vain until it was given up. */
static struct dragon_spin given_up(void)
{
    struct dragon_spin spin = {0};

    while (dragon_peek(&spin.budget_ns) >= 0)
        wait_once(&spin, false);
    return spin;
}

/* The waits that are skipped before the next one that looks. */
static int n_skipped_until_it_looks(struct dragon_spin *spin, struct dragon_spin_round *round_out)
{
    int n = 0;

    while (*round_out = dragon_spin_begin(spin), !looks(round_out)) {
        dragon_spin_end(spin, round_out, false);
        n++;
    }
    return n;
}

Test(spin, a_fresh_one_looks)
{
    struct dragon_spin spin = {0};
    struct dragon_spin_round round = wait_once(&spin, true);

    cr_assert(looks(&round));
    cr_assert_eq(dragon_peek(&spin.budget_ns), 2 * DRAGON_SPIN_MIN_NS);
}

Test(spin, success_doubles_the_budget_up_to_the_most)
{
    struct dragon_spin spin = {0};

    for (int i = 0; i < 10; i++)
        wait_once(&spin, true);
    cr_assert_eq(dragon_peek(&spin.budget_ns), DRAGON_SPIN_MAX_NS);
}

Test(spin, a_slice_that_was_lost_ends_looking_at_once)
{
    struct dragon_spin spin = {0};
    struct dragon_spin_round round = dragon_spin_begin(&spin);

    round.lost_a_slice = true;
    dragon_spin_end(&spin, &round, true);
    cr_assert_lt(dragon_peek(&spin.budget_ns), 0);
}

Test(spin, one_that_has_given_up_looks_once_in_a_while)
{
    struct dragon_spin spin = given_up();
    struct dragon_spin_round round;

    cr_assert_eq(n_skipped_until_it_looks(&spin, &round), DRAGON_SPIN_SKIPS);
    dragon_spin_end(&spin, &round, false);
    cr_assert_eq(n_skipped_until_it_looks(&spin, &round), DRAGON_SPIN_SKIPS,
                 "one look in vain must not be followed by others at once");
}

Test(spin, a_look_of_one_that_had_given_up_is_as_long_as_any)
{
    struct dragon_spin spin = given_up();
    struct dragon_spin_round round;
    int64_t before_ns;

    for (int i = 0; i < DRAGON_SPIN_SKIPS; i++)
        wait_once(&spin, false);
    before_ns = dragon_now_ns();
    round = dragon_spin_begin(&spin);
    cr_assert_geq(round.end_ns, before_ns + DRAGON_SPIN_MAX_NS);
}

Test(spin, one_that_had_given_up_looks_on_after_a_success)
{
    struct dragon_spin spin = given_up();
    struct dragon_spin_round round;

    n_skipped_until_it_looks(&spin, &round);
    dragon_spin_end(&spin, &round, true);
    cr_assert_eq(dragon_peek(&spin.budget_ns), DRAGON_SPIN_MAX_NS);
}
