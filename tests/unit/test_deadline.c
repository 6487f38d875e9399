#include "base/deadline.h"

#include <criterion/criterion.h>

TestSuite(deadline, .timeout = 30);

Test(deadline, now_never_goes_back)
{
    int64_t before_ns = dragon_now_ns();

    for (int i = 0; i < 1000; i++) {
        int64_t now_ns = dragon_now_ns();

        cr_assert_geq(now_ns, before_ns);
        before_ns = now_ns;
    }
}

Test(deadline, no_time_and_negative_time_are_at_once)
{
    cr_assert_eq(dragon_deadline_after_ns(0), DRAGON_AT_ONCE);
    cr_assert_eq(dragon_deadline_after_ns(-1), DRAGON_AT_ONCE);
    cr_assert_eq(dragon_deadline_after_ns(INT64_MIN), DRAGON_AT_ONCE);
}

Test(deadline, what_does_not_fit_is_forever)
{
    cr_assert_eq(dragon_deadline_after_ns(INT64_MAX), DRAGON_FOREVER);
    cr_assert_eq(dragon_deadline_after_ns(INT64_MAX - 1), DRAGON_FOREVER);
}

Test(deadline, lies_as_far_ahead_as_asked)
{
    int64_t before_ns = dragon_now_ns();
    int64_t deadline_ns = dragon_deadline_after_ns(5 * DRAGON_NS_PER_S);
    int64_t after_ns = dragon_now_ns();

    cr_assert_geq(deadline_ns, before_ns + 5 * DRAGON_NS_PER_S);
    cr_assert_leq(deadline_ns, after_ns + 5 * DRAGON_NS_PER_S);
}

Test(deadline, remaining_time_shrinks_to_zero_and_not_below)
{
    cr_assert_eq(dragon_deadline_remaining_ns(DRAGON_AT_ONCE), 0);
    cr_assert_eq(dragon_deadline_remaining_ns(-5), 0);
    cr_assert_eq(dragon_deadline_remaining_ns(1), 0);
    cr_assert_eq(dragon_deadline_remaining_ns(dragon_now_ns() - 1), 0);
    cr_assert_gt(dragon_deadline_remaining_ns(dragon_now_ns() + 60 * DRAGON_NS_PER_S),
                 50 * DRAGON_NS_PER_S);
}

Test(deadline, forever_never_passes)
{
    cr_assert_eq(dragon_deadline_remaining_ns(DRAGON_FOREVER), DRAGON_FOREVER);
    cr_assert_not(dragon_deadline_passed(DRAGON_FOREVER));
}

Test(deadline, passes_when_nothing_remains)
{
    cr_assert(dragon_deadline_passed(DRAGON_AT_ONCE));
    cr_assert(dragon_deadline_passed(INT64_MIN));
    cr_assert(dragon_deadline_passed(dragon_now_ns()));
    cr_assert_not(dragon_deadline_passed(dragon_deadline_after_ns(60 * DRAGON_NS_PER_S)));
}

Test(deadline, the_earlier_of_two_is_the_smaller)
{
    cr_assert_eq(dragon_deadline_earlier(5, 7), 5);
    cr_assert_eq(dragon_deadline_earlier(7, 5), 5);
    cr_assert_eq(dragon_deadline_earlier(DRAGON_FOREVER, 5), 5);
    cr_assert_eq(dragon_deadline_earlier(DRAGON_FOREVER, DRAGON_FOREVER), DRAGON_FOREVER);
}
