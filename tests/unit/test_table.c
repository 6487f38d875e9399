#include "memory/object.h"
#include "memory/pool.h"
#include "os/os.h"
#include "process/table.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static struct dragon_pool *pool;
static struct dragon_table table;
static uint64_t own_ticks;

static void open_table_in(uint64_t pool_bytes)
{
    uint64_t offset;

    cr_assert_eq(dragon_pool_create_managed(pool_bytes, 7, 1, &pool), 0);
    offset = (uint64_t)((char *)dragon_pool_root(pool) - (char *)dragon_pool_at(pool, 0));
    cr_assert_eq(dragon_table_init(&table, pool, offset), 0);
    cr_assert_eq(dragon_os_start_time(getpid(), &own_ticks), 0);
}

static void open_table(void)
{
    open_table_in(UINT64_C(64) << 20);
}

static void close_table(void)
{
    dragon_pool_close(pool);
}

TestSuite(table, .timeout = 60, .init = open_table, .fini = close_table);

static uint32_t claim_for(pid_t pid, uint64_t ticks)
{
    uint32_t slot = UINT32_MAX;

    cr_assert_eq(dragon_table_claim(&table, pid, ticks, getppid(), &slot), 0);
    cr_assert_not_null(dragon_table_slot(&table, slot));
    return slot;
}

static uint32_t claim(void)
{
    return claim_for(getpid(), own_ticks);
}

static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks;
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static pid_t dead_pid(void)
{
    pid_t pid = child_start(nothing, NULL);

    child_result(pid);
    return pid;
}

Test(table, a_new_one_has_free_slots_and_no_block)
{
    uint32_t slot;

    cr_assert_eq(dragon_table_n_slots(&table), DRAGON_TABLE_FIRST_SLOTS);
    cr_assert_eq(n_blocks(), 0);
    cr_assert_not(dragon_table_find(&table, getpid(), &slot));
    cr_assert_null(dragon_table_slot(&table, DRAGON_TABLE_FIRST_SLOTS));
    cr_assert_null(dragon_table_slot(&table, UINT32_MAX));
}

Test(table, a_claimed_slot_says_who_has_it)
{
    uint32_t index = claim(), found = UINT32_MAX;
    struct dragon_table_slot *slot = dragon_table_slot(&table, index);

    cr_assert_eq(slot->pid, getpid());
    cr_assert_eq(slot->start_ticks, own_ticks);
    cr_assert_eq(slot->parent_pid, getppid());
    cr_assert_eq(slot->state, DRAGON_TABLE_ALIVE);
    cr_assert_eq(slot, dragon_table_claimed(&table, index));
    cr_assert(dragon_table_find(&table, getpid(), &found));
    cr_assert_eq(found, index);
}

Test(table, a_released_slot_is_not_found_and_serves_again)
{
    uint32_t first = claim(), found;

    dragon_table_release(&table, first);
    cr_assert_not(dragon_table_find(&table, getpid(), &found));
    cr_assert_eq(claim(), first);
}

Test(table, a_claimed_slot_has_no_ring_of_its_last_owner)
{
    uint32_t slot = claim();

    dragon_doorbell_ring(&dragon_table_slot(&table, slot)->doorbell, 5);
    dragon_table_release(&table, slot);
    cr_assert_eq(claim(), slot);
    cr_assert_eq(dragon_table_slot(&table, slot)->doorbell.ready[0], 0);
}

Test(table, releasing_a_slot_that_does_not_exist_is_fine)
{
    dragon_table_release(&table, 100000);
}

Test(table, grows_and_its_slots_never_move)
{
    struct dragon_table_slot *first = dragon_table_slot(&table, claim());

    /* 16 slots, doubled until 300 fit: 512. */
    for (uint32_t i = 1; i < 300; i++)
        cr_assert_eq(claim(), i);
    cr_assert_eq(dragon_table_n_slots(&table), 512);
    cr_assert_eq(dragon_table_slot(&table, 0), first);
    cr_assert_not_null(dragon_table_slot(&table, 511));
    cr_assert_null(dragon_table_slot(&table, 512));
}

Test(table, slots_and_doorbells_do_not_overlap)
{
    uint64_t before = 0;

    for (uint32_t i = 0; i < 300; i++)
        claim();
    for (uint32_t i = 0; i < 300; i++) {
        uint64_t offset = dragon_table_doorbell_offset(&table, i);

        cr_assert_eq(offset % 64, 0, "channels pack it");
        cr_assert_eq(dragon_pool_at(pool, offset), &dragon_table_slot(&table, i)->doorbell);
        dragon_table_slot(&table, i)->parent_pid = (int32_t)i;
        cr_assert_neq(offset, before);
        before = offset;
    }
    for (uint32_t i = 0; i < 300; i++)
        cr_assert_eq(dragon_table_slot(&table, i)->parent_pid, (int32_t)i);
}

Test(table, another_view_of_it_sees_the_same_slots)
{
    struct dragon_table other;
    uint32_t index = 0, found;

    for (int i = 0; i < 100; i++)
        index = claim_for(getpid(), own_ticks);
    dragon_table_release(&table, 3);
    dragon_table_open(&other, pool, table.offset);
    cr_assert_eq(dragon_table_n_slots(&other), dragon_table_n_slots(&table));
    cr_assert_eq(dragon_table_slot(&other, index), dragon_table_slot(&table, index));
    cr_assert_eq(dragon_table_claim(&other, getpid(), own_ticks, 1, &found), 0);
    cr_assert_eq(found, 3);
}

Test(table, a_full_pool_is_an_outcome_and_passes_when_a_slot_is_released)
{
    uint32_t slot;

    close_table();
    open_table_in(4096); /* one chunk: the second segment has no room */
    for (uint32_t i = 0; i < 2 * DRAGON_TABLE_FIRST_SLOTS; i++)
        claim();
    cr_assert_eq(dragon_table_claim(&table, getpid(), own_ticks, 1, &slot), DRAGON_TABLE_FULL);
    dragon_table_release(&table, 20);
    cr_assert_eq(claim(), 20);
}

/* ---- slots that were left behind ---- */

static void fill_but_one(void)
{
    for (uint32_t i = 0; i < DRAGON_TABLE_FIRST_SLOTS - 1; i++)
        claim();
}

static void give_blocks(uint32_t slot, int n)
{
    struct dragon_handle handle;

    for (int i = 0; i < n; i++)
        cr_assert_eq(dragon_pool_alloc(pool, 100, DRAGON_HOLDER_FIRST_SLOT + slot, &handle), 0);
}

Test(table, the_slot_of_a_process_that_ended_unseen_is_taken_over_and_swept)
{
    uint32_t left;

    fill_but_one();
    left = claim_for(dead_pid(), 1);
    give_blocks(left, 5);
    give_blocks(0, 1);
    cr_assert_eq(claim(), left);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_eq(dragon_table_n_slots(&table), DRAGON_TABLE_FIRST_SLOTS);
}

Test(table, the_slot_of_an_earlier_process_with_a_living_pid_is_taken_over)
{
    uint32_t left;

    fill_but_one();
    left = claim_for(getppid(), 1); /* not when our parent started */
    cr_assert_eq(claim(), left);
}

Test(table, slots_of_living_processes_are_not_taken_over)
{
    fill_but_one();
    claim_for(getppid(), 0); /* it has not said yet when it started */
    cr_assert_eq(claim(), DRAGON_TABLE_FIRST_SLOTS);
}

Test(table, a_dead_slot_is_taken_over_even_if_its_sweeper_died)
{
    uint32_t left;

    fill_but_one();
    left = claim_for(dead_pid(), 1);
    give_blocks(left, 3);
    dragon_table_slot(&table, left)->state = DRAGON_TABLE_DEAD;
    cr_assert_eq(claim(), left);
    cr_assert_eq(n_blocks(), 0);
}

Test(table, a_process_releases_what_an_earlier_one_with_its_pid_left)
{
    uint32_t left = claim_for(getpid(), own_ticks + 1), found;

    claim_for(getppid(), 0);
    give_blocks(left, 3);
    cr_assert_neq(claim(), left, "others first: it tells of a death");
    cr_assert_eq(dragon_table_slot(&table, left)->state, DRAGON_TABLE_FREE);
    cr_assert_eq(n_blocks(), 0);
    cr_assert(dragon_table_find(&table, getpid(), &found));
    cr_assert_eq(dragon_table_slot(&table, found)->start_ticks, own_ticks);
}

Test(table, sweeping_the_dead_leaves_the_living)
{
    uint32_t living = claim(), dead = claim_for(dead_pid(), 1), found;

    give_blocks(living, 2);
    give_blocks(dead, 3);
    dragon_table_sweep_dead(&table);
    cr_assert_eq(n_blocks(), 5, "nobody has seen the death yet");
    dragon_table_slot(&table, dead)->state = DRAGON_TABLE_DEAD;
    dragon_table_sweep_dead(&table);
    cr_assert_eq(n_blocks(), 2);
    cr_assert_eq(dragon_table_slot(&table, dead)->state, DRAGON_TABLE_FREE);
    cr_assert(dragon_table_find(&table, getpid(), &found));
}

static int die_locked(void *argument)
{
    (void)argument;
    dragon_mutex_lock(&table.shared->mutex);
    kill(getpid(), SIGKILL);
    return 1;
}

Test(table, works_on_after_a_process_died_while_it_claimed)
{
    cr_assert_eq(child_result(child_start(die_locked, NULL)), 256 + SIGKILL);
    cr_assert_eq(claim(), 0);
    cr_assert_eq(claim(), 1);
}

static int claim_some(void *argument)
{
    uint64_t ticks;
    uint32_t slot;

    (void)argument;
    if (dragon_os_start_time(getpid(), &ticks) < 0)
        return 1;
    for (int i = 0; i < 40; i++) {
        if (dragon_table_claim(&table, getpid(), ticks, getppid(), &slot) != 0)
            return 2;
        if (dragon_table_slot(&table, slot)->pid != getpid())
            return 3;
        if (i % 2)
            dragon_table_release(&table, slot);
    }
    pause(); /* a slot of a process that ended may be taken over */
    return 0;
}

static bool has_80_slots_claimed(void *argument)
{
    uint32_t n = 0;

    (void)argument;
    for (uint32_t i = 0; i < dragon_table_n_slots(&table); i++)
        n += dragon_table_slot(&table, i)->state == DRAGON_TABLE_ALIVE;
    return n == 4 * 20;
}

Test(table, processes_that_claim_at_once_get_slots_of_their_own)
{
    pid_t children[4];

    for (int i = 0; i < 4; i++)
        children[i] = child_start(claim_some, NULL);
    cr_assert(becomes_true(has_80_slots_claimed, NULL));
    for (int i = 0; i < 4; i++)
        cr_assert_eq(child_kill(children[i]), 256 + SIGKILL);
}

Test(table, a_segment_that_others_moved_out_of_the_pool_is_not_used)
{
    struct dragon_table opened;
    uint32_t slot;

    for (uint32_t i = 0; i <= DRAGON_TABLE_FIRST_SLOTS; i++)
        claim();
    cr_assert_eq(dragon_table_n_slots(&table), 2 * DRAGON_TABLE_FIRST_SLOTS);
    table.shared->segments[0] = UINT64_C(1) << 40;
    dragon_table_open(&opened, pool, table.offset);
    cr_assert_eq(dragon_table_n_slots(&opened), DRAGON_TABLE_FIRST_SLOTS);
    cr_assert_null(dragon_table_slot(&opened, DRAGON_TABLE_FIRST_SLOTS));
    cr_assert_eq(dragon_table_claim(&opened, getpid(), own_ticks, 1, &slot), -EBADMSG);
    /* Who knew the segment goes on with it. */
    cr_assert_eq(dragon_table_n_slots(&table), 2 * DRAGON_TABLE_FIRST_SLOTS);
    claim();
    table.shared->n_segments = UINT32_MAX;
    cr_assert_eq(dragon_table_n_slots(&opened), DRAGON_TABLE_FIRST_SLOTS);
}

/* ---- copies that are about to be forked ---- */

static uint32_t claim_for_copy(uint32_t parent)
{
    uint32_t slot = UINT32_MAX;

    cr_assert_eq(dragon_table_claim_for_copy(&table, parent, &slot), 0);
    return slot;
}

/* An object that only the process in a slot uses. */
static void use_object(uint32_t slot)
{
    struct dragon_object object;

    cr_assert_eq(dragon_object_create(pool, DRAGON_KIND('T', 'E', 'S', 'T'), 64,
                                      DRAGON_HOLDER_FIRST_SLOT + slot, &object),
                 0);
}

static void sweep(uint32_t slot)
{
    dragon_publish(&dragon_table_slot(&table, slot)->state, DRAGON_TABLE_DEAD);
    dragon_table_sweep_dead(&table);
    cr_assert_eq(dragon_table_slot(&table, slot)->state, DRAGON_TABLE_FREE);
}

Test(table, a_copy_makes_the_slot_that_its_parent_claimed_its_own)
{
    uint32_t parent = claim(), copy = claim_for_copy(parent), found;
    pid_t pid = dead_pid();

    cr_assert_neq(copy, parent);
    cr_assert_not(dragon_table_find(&table, pid, &found));
    cr_assert(dragon_table_become(&table, copy, pid, 5));
    cr_assert(dragon_table_find(&table, pid, &found));
    cr_assert_eq(found, copy);
    cr_assert_eq(dragon_table_slot(&table, copy)->start_ticks, 5);
    cr_assert_eq(dragon_table_slot(&table, copy)->parent_pid, getpid());
    cr_assert(dragon_table_find(&table, getpid(), &found));
    cr_assert_eq(found, parent);
    cr_assert_not(dragon_table_become(&table, copy, pid, 5), "only once");
}

Test(table, who_has_no_child_does_not_wait_for_a_copy)
{
    uint32_t copy = claim_for_copy(claim());

    cr_assert_not(dragon_table_await_copy(&table, copy, DRAGON_FOREVER));
    cr_assert(dragon_table_become(&table, copy, dead_pid(), 5));
    cr_assert(dragon_table_await_copy(&table, copy, DRAGON_FOREVER));
}

static int pause_for_ever(void *unused)
{
    (void)unused;
    pause();
    return 0;
}

Test(table, a_copy_that_does_not_come_is_waited_for_until_the_deadline)
{
    uint32_t copy = claim_for_copy(claim());
    pid_t other = child_start(pause_for_ever, NULL);

    cr_assert_not(
        dragon_table_await_copy(&table, copy, dragon_deadline_after_ns(TEST_SECOND / 20)));
    cr_assert_eq(child_kill(other), 256 + SIGKILL);
}

Test(table, the_sweep_of_a_parent_takes_what_was_claimed_for_a_copy_that_never_came)
{
    uint32_t parent = claim(), copy = claim_for_copy(parent);

    use_object(copy);
    sweep(parent);
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(dragon_table_slot(&table, copy)->state, DRAGON_TABLE_FREE);
    cr_assert_not(dragon_table_become(&table, copy, dead_pid(), 5));
}

Test(table, the_sweep_of_a_parent_leaves_its_copies_to_themselves)
{
    uint32_t parent = claim(), copy = claim_for_copy(parent);

    use_object(copy);
    cr_assert(dragon_table_become(&table, copy, dead_pid(), 5));
    sweep(parent);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_eq(dragon_table_slot(&table, copy)->state, DRAGON_TABLE_ALIVE);
    sweep(copy);
    cr_assert_eq(n_blocks(), 0);
}

Test(table, a_slot_for_a_copy_is_not_taken_for_an_abandoned_one)
{
    uint32_t parent = claim(), copy = claim_for_copy(parent);

    for (uint32_t i = 0; i < DRAGON_TABLE_FIRST_SLOTS; i++)
        cr_assert_neq(claim(), copy);
    cr_assert_eq(dragon_table_slot(&table, copy)->state, DRAGON_TABLE_FORKING);
}

Test(table, who_leaves_gives_back_what_it_claimed_for_a_copy_that_never_came)
{
    uint32_t parent = claim(), copy = claim_for_copy(parent);

    use_object(copy);
    dragon_table_disown(&table, parent);
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(dragon_table_slot(&table, copy)->state, DRAGON_TABLE_FREE);
}

/* ---- processes that somebody thinks have ended ---- */

Test(table, the_slot_of_a_process_that_has_ended_becomes_a_dead_ones)
{
    pid_t reaped = dead_pid(), zombie = child_start(pause_for_ever, NULL);
    uint32_t slots[2] = {claim_for(reaped, 5), claim_for(zombie, 0)};
    siginfo_t ended;

    dragon_publish(&dragon_table_slot(&table, slots[0])->state, DRAGON_TABLE_ENDING);
    cr_assert_eq(kill(zombie, SIGKILL), 0);
    cr_assert_eq(waitid(P_PID, (id_t)zombie, &ended, WEXITED | WNOWAIT), 0);
    cr_assert_eq(dragon_table_bury(&table, reaped, DRAGON_STATUS_UNKNOWN), 1);
    cr_assert_eq(dragon_table_bury(&table, zombie, DRAGON_STATUS_UNKNOWN), 1);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(dragon_table_slot(&table, slots[i])->state, DRAGON_TABLE_DEAD);
    cr_assert_eq(dragon_table_bury(&table, zombie, DRAGON_STATUS_UNKNOWN), 0, "only once");
    cr_assert_eq(child_result(zombie), 256 + SIGKILL);
}

Test(table, the_slot_of_a_living_process_with_the_pid_of_a_dead_one_stays_its_own)
{
    uint32_t slot = claim();

    cr_assert_eq(dragon_table_bury(&table, getpid(), DRAGON_STATUS_UNKNOWN), 0);
    cr_assert_eq(dragon_table_slot(&table, slot)->state, DRAGON_TABLE_ALIVE);
}

Test(table, the_slot_of_a_process_whose_pid_is_a_later_ones_becomes_a_dead_ones)
{
    uint32_t slot = claim_for(getpid(), own_ticks - 1);

    cr_assert_eq(dragon_table_bury(&table, getpid(), DRAGON_STATUS_UNKNOWN), 1);
    cr_assert_eq(dragon_table_slot(&table, slot)->state, DRAGON_TABLE_DEAD);
}

Test(table, the_end_of_an_earlier_owner_does_not_touch_a_slot_that_is_a_copys)
{
    uint32_t parent = claim(), earlier = claim_for(dead_pid(), 5), copy;
    pid_t pid = dragon_table_slot(&table, earlier)->pid;

    dragon_table_release(&table, earlier);
    copy = claim_for_copy(parent);
    cr_assert_eq(copy, earlier);
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 0);
    cr_assert(dragon_table_become(&table, copy, getpid(), own_ticks));
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 0);
    cr_assert_eq(dragon_table_slot(&table, copy)->state, DRAGON_TABLE_ALIVE);
}

/* ---- how processes have ended ---- */

static uint64_t number_of(uint32_t slot)
{
    return dragon_table_slot(&table, slot)->number;
}

Test(table, each_process_has_a_number_of_its_own)
{
    uint32_t slot = claim();
    uint64_t first = number_of(slot);

    cr_assert(dragon_table_has(&table, first));
    cr_assert_eq(dragon_table_pid_of(&table, first), getpid());
    dragon_table_release(&table, slot);
    cr_assert_not(dragon_table_has(&table, first));
    cr_assert_eq(dragon_table_pid_of(&table, first), 0);
    cr_assert_eq(claim(), slot);
    cr_assert_neq(number_of(slot), first);
    cr_assert_not(dragon_table_has(&table, first));
    cr_assert_not(dragon_table_has(&table, 0));
    cr_assert_not(dragon_table_has(&table, UINT64_MAX));
}

static int end_with_3(void *argument)
{
    (void)argument;
    return 3;
}

/* The slot of a child that has ended, and nobody has waited for. */
static uint32_t zombie_in_slot(int (*run)(void *), int signal, pid_t *pid_out)
{
    siginfo_t ended;
    uint32_t slot;

    *pid_out = child_start(run, NULL);
    slot = claim_for(*pid_out, 0);
    if (signal)
        cr_assert_eq(kill(*pid_out, signal), 0);
    cr_assert_eq(waitid(P_PID, (id_t)*pid_out, &ended, WEXITED | WNOWAIT), 0);
    return slot;
}

static uint64_t death_in(uint32_t slot)
{
    return dragon_table_slot(&table, slot)->death;
}

Test(table, a_killed_process_leaves_its_pid_signal_and_name_until_its_slot_is_used_again)
{
    char name[DRAGON_TABLE_NAME_BYTES];
    uint32_t slot;
    uint64_t death;
    pid_t pid;

    slot = zombie_in_slot(pause_for_ever, SIGKILL, &pid);
    dragon_table_set_name(&table, slot, "a name of more than twenty-seven bytes");
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 1);
    death = death_in(slot);
    cr_assert(dragon_is_death(death));
    cr_assert_eq(dragon_death_pid(death), pid);
    cr_assert_eq(dragon_death_status(death), SIGKILL);
    dragon_table_sweep_dead(&table);
    dragon_table_name_of_dead(&table, death, name);
    cr_assert_str_eq(name, "a name of more than twenty-");
    for (uint32_t i = 1; i < DRAGON_TABLE_FIRST_SLOTS; i++)
        cr_assert_neq(claim(), slot);
    dragon_table_name_of_dead(&table, death, name);
    cr_assert_str_eq(name, "a name of more than twenty-");
    cr_assert_eq(claim(), slot);
    dragon_table_name_of_dead(&table, death, name);
    cr_assert_str_eq(name, "");
    cr_assert_eq(child_result(pid), 256 + SIGKILL);
}

Test(table, a_slot_that_tells_of_a_death_is_used_after_one_that_has_been_released_since)
{
    uint32_t slot, released;
    pid_t pid;

    slot = zombie_in_slot(pause_for_ever, SIGKILL, &pid);
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 1);
    dragon_table_sweep_dead(&table);
    released = claim();
    for (uint32_t i = 2; i < DRAGON_TABLE_FIRST_SLOTS; i++)
        cr_assert_neq(claim(), slot);
    dragon_table_release(&table, released);
    cr_assert_eq(claim(), released);
    cr_assert_eq(claim(), slot);
    cr_assert_eq(child_result(pid), 256 + SIGKILL);
}

Test(table, who_has_left_has_not_died)
{
    uint32_t slot;
    pid_t pid;

    slot = zombie_in_slot(end_with_3, 0, &pid);
    dragon_publish(&dragon_table_slot(&table, slot)->state, DRAGON_TABLE_ENDING);
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 1);
    cr_assert_eq(death_in(slot), 0);
}

Test(table, who_ends_without_leaving_has_died_but_for_a_copy_that_ends_with_status_0)
{
    uint32_t slot, copy, failed;
    pid_t pids[3];

    slot = zombie_in_slot(nothing, 0, &pids[0]);
    copy = zombie_in_slot(nothing, 0, &pids[1]);
    failed = zombie_in_slot(end_with_3, 0, &pids[2]);
    dragon_table_slot(&table, copy)->is_copy = 1;
    dragon_table_slot(&table, failed)->is_copy = 1;
    dragon_table_bury_all(&table);
    cr_assert_eq(dragon_death_status(death_in(slot)), 0);
    cr_assert(dragon_is_death(death_in(slot)));
    cr_assert_eq(death_in(copy), 0);
    cr_assert_eq(dragon_death_status(death_in(failed)), 3 << 8);
}

static void allow_descriptors(rlim_t n)
{
    struct rlimit limit;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Test(table, without_a_descriptor_nobody_can_tell_and_the_slot_is_unwatched)
{
    pid_t pid = dead_pid(), alive = getpid();
    uint32_t slot = claim(), dead = claim_for(pid, 5);

    allow_descriptors(1);
    cr_assert_eq(dragon_table_bury(&table, alive, DRAGON_STATUS_UNKNOWN), -EMFILE);
    allow_descriptors(256);
    cr_assert_eq(dragon_table_slot(&table, slot)->state, DRAGON_TABLE_ALIVE);
    cr_assert_eq(dragon_table_slot(&table, slot)->is_watched, 0);
    cr_assert_eq(dragon_table_bury(&table, pid, DRAGON_STATUS_UNKNOWN), 1);
    cr_assert_eq(dragon_table_slot(&table, dead)->state, DRAGON_TABLE_DEAD);
}

/* ---- who is watched by no supervisor ---- */

static uint32_t claim_child_of(pid_t parent)
{
    uint32_t slot;

    cr_assert_eq(dragon_table_claim(&table, dead_pid(), 5, parent, &slot), 0);
    return slot;
}

Test(table, a_child_is_watched_by_its_parent)
{
    (void)claim();
    (void)dragon_table_take_unwatched(&table);
    cr_assert_eq(dragon_table_slot(&table, claim_child_of(getpid()))->is_watched, 1);
    cr_assert_not(dragon_table_take_unwatched(&table));
}

Test(table, a_child_whose_parent_has_no_slot_is_unwatched)
{
    cr_assert_eq(dragon_table_slot(&table, claim_child_of(getpid()))->is_watched, 0);
    cr_assert(dragon_table_take_unwatched(&table));
    cr_assert_not(dragon_table_take_unwatched(&table), "said once");
}

Test(table, children_of_the_dead_and_copies_are_unwatched)
{
    uint32_t parent = claim(), child = claim_child_of(getpid()), copy = claim_for_copy(parent);

    cr_assert(dragon_table_become(&table, copy, dead_pid(), 5));
    cr_assert_eq(dragon_table_slot(&table, copy)->is_watched, 0);
    (void)dragon_table_take_unwatched(&table);
    sweep(parent);
    cr_assert_eq(dragon_table_slot(&table, child)->is_watched, 0);
    cr_assert(dragon_table_take_unwatched(&table));
}
