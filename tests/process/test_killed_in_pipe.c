/* A process is killed while it sends to a pipe, receives from it, or takes the byte back: the
 * others go on, and the descriptor is readable when there is a message. The parent has both ends
 * open, so the end of the stream helps nobody; but for the tests of the end itself. */
#include "support/pipe_fixture.h"
#include "support/test_point.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>

TestSuite(killed_in_pipe, .timeout = 60);

static struct pipe_fixture fixture;
static struct dragon_pipe *reader = &fixture.reader;
static struct dragon_pipe *writer = &fixture.writer;

static bool is_readable(void)
{
    struct pollfd item = {.fd = reader->fd, .events = POLLIN};

    return poll(&item, 1, 0) == 1;
}

static int send_1(void *unused)
{
    (void)unused;
    return pipe_send_number(writer, 1, DRAGON_AT_ONCE);
}

static int receive_at_once(void *unused)
{
    (void)unused;
    return pipe_receive_number(reader, &(uint64_t){0}, DRAGON_AT_ONCE);
}

static int receive(void *unused)
{
    (void)unused;
    return pipe_receive_number(reader, &(uint64_t){0}, test_soon());
}

static int receive_to_the_end(void *unused)
{
    (void)unused;
    close(writer->fd);
    return pipe_receive_number(reader, &(uint64_t){0}, test_soon());
}

static void check_it_goes_on(void)
{
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pipe_send_number(writer, 1, DRAGON_AT_ONCE), 0);
        cr_assert(is_readable());
        cr_assert_eq(pipe_send_number(writer, 2, DRAGON_AT_ONCE), 0);
        cr_assert_eq(receive_at_once(NULL), 0);
        cr_assert(is_readable());
        cr_assert_eq(receive_at_once(NULL), 0);
        cr_assert_not(is_readable());
    }
    cr_assert_eq(receive_at_once(NULL), DRAGON_CHANNEL_EMPTY);
    cr_assert(dragon_channel_check(&reader->channel));
}

static void open_pipe(bool is_exposed)
{
    pipe_fixture_open(&fixture, 1000);
    if (is_exposed)
        cr_assert_eq(dragon_pipe_expose(reader), 0);
}

Test(killed_in_pipe, a_message_of_a_killed_sender_has_its_byte)
{
    const char *points[] = {"pipe-before-byte", "pipe-after-byte", "pipe-after-note",
                            "channel-before-head-store", "channel-after-head-store"};

    for (int i = 0; i < 5; i++) {
        open_pipe(true);
        cr_assert(child_dies_at(points[i], send_1, NULL));
        cr_assert_eq(is_readable(), i > 0);
        cr_assert_eq(receive_at_once(NULL), i == 4 ? 0 : DRAGON_CHANNEL_EMPTY);
        cr_assert_not(is_readable(), "a byte without a message is dropped");
        check_it_goes_on();
    }
}

Test(killed_in_pipe, bytes_that_killed_senders_left_do_not_add_up)
{
    open_pipe(true);
    for (int i = 0; i < 3; i++)
        cr_assert(child_dies_at("pipe-after-byte", send_1, NULL));
    check_it_goes_on();
}

Test(killed_in_pipe, who_dies_taking_the_byte_back_loses_no_later_message)
{
    const char *points[] = {"pipe-after-clearing", "pipe-before-drop"};

    for (int i = 0; i < 4; i++) {
        open_pipe(i < 2);
        cr_assert_eq(pipe_send_number(writer, 1, DRAGON_AT_ONCE), 0);
        if (i < 2) { /* after it took the last message */
            cr_assert(child_dies_at(points[i % 2], receive_at_once, NULL));
        } else { /* before it sleeps */
            cr_assert_eq(receive_at_once(NULL), 0);
            cr_assert(child_dies_at(points[i % 2], receive, NULL));
        }
        cr_assert_eq(pipe_send_number(writer, 1, DRAGON_AT_ONCE), 0);
        cr_assert(is_readable());
        cr_assert_eq(receive(NULL), 0);
        cr_assert_eq(dragon_pipe_expose(reader), 0);
        check_it_goes_on();
    }
}

Test(killed_in_pipe, a_killed_receiver_leaves_the_others_a_pipe)
{
    const char *points[] = {"channel-before-tail-store", "channel-after-tail-store"};

    for (int i = 0; i < 2; i++) {
        open_pipe(true);
        cr_assert_eq(pipe_send_number(writer, 1, DRAGON_AT_ONCE), 0);
        cr_assert(child_dies_at(points[i], receive_at_once, NULL));
        cr_assert(is_readable());
        cr_assert_eq(receive_at_once(NULL), i == 0 ? 0 : DRAGON_CHANNEL_EMPTY);
        check_it_goes_on();
    }
}

static int wait_to_be_killed(void *unused)
{
    (void)unused;
    pause();
    return 1;
}

Test(killed_in_pipe, the_death_of_the_last_writer_ends_a_sleeping_reader)
{
    pid_t writing, reading;

    open_pipe(false);
    writing = child_start(wait_to_be_killed, NULL);
    reading = child_start(receive_to_the_end, NULL);
    close(writer->fd);
    cr_assert_eq(child_kill(writing), 256 + SIGKILL);
    cr_assert_eq(child_result(reading), DRAGON_PIPE_ENDED);
}

static int send_until_broken(void *unused)
{
    int r = 0;

    (void)unused;
    close(reader->fd);
    while (r == 0)
        r = pipe_send_number(writer, 1, test_soon());
    return r;
}

static bool is_full(void *unused)
{
    (void)unused;
    return dragon_channel_is_full(&writer->channel);
}

Test(killed_in_pipe, the_death_of_the_last_reader_ends_a_sender_that_waits_for_room)
{
    pid_t writing, reading;

    open_pipe(false);
    reading = child_start(wait_to_be_killed, NULL);
    writing = child_start(send_until_broken, NULL);
    close(reader->fd);
    cr_assert(becomes_true(is_full, NULL));
    cr_assert_eq(child_kill(reading), 256 + SIGKILL);
    cr_assert_eq(child_result(writing), DRAGON_PIPE_BROKEN);
}

Test(killed_in_pipe, a_send_after_the_death_of_the_last_reader_is_broken)
{
    pid_t reading;

    open_pipe(false);
    reading = child_start(wait_to_be_killed, NULL);
    close(reader->fd);
    cr_assert_eq(pipe_send_number(writer, 1, DRAGON_AT_ONCE), 0);
    cr_assert_eq(child_kill(reading), 256 + SIGKILL);
    usleep(2 * DRAGON_PIPE_LOOK_NS / 1000); /* the promise has a time in it */
    cr_assert_eq(pipe_send_number(writer, 2, DRAGON_AT_ONCE), DRAGON_PIPE_BROKEN);
}
