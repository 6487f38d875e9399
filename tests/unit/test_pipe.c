/* One process, or two that end as they should. Deaths: tests/process/test_killed_in_pipe.c. */
#include "support/pipe_fixture.h"
#include "support/shared_page.h"
#include "wait/mutex.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

static struct pipe_fixture fixture;
static struct dragon_pipe *reader = &fixture.reader;
static struct dragon_pipe *writer = &fixture.writer;

static void open_pipe(void)
{
    pipe_fixture_open(&fixture, 1000);
}

TestSuite(pipe, .timeout = 60, .init = open_pipe);

static bool is_readable(void)
{
    struct pollfd item = {.fd = reader->fd, .events = POLLIN};

    return poll(&item, 1, 0) == 1;
}

static void close_end(struct dragon_pipe *end)
{
    close(end->fd);
    end->fd = -1;
}

static void send_one(uint64_t number)
{
    cr_assert_eq(pipe_send_number(writer, number, DRAGON_AT_ONCE), 0);
}

static void expect(uint64_t wanted)
{
    uint64_t number = UINT64_MAX;

    cr_assert_eq(pipe_receive_number(reader, &number, test_soon()), 0);
    cr_assert_eq(number, wanted);
}

static int receive_at_once(void)
{
    uint64_t number;

    return pipe_receive_number(reader, &number, DRAGON_AT_ONCE);
}

/* A byte that carries a descriptor, as multiprocessing.reduction sends it. */
static void send_descriptor(int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = 1;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct cmsghdr *header;

    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    cr_assert_eq(sendmsg(writer->fd, &message, 0), 1);
}

/* The first byte of the socket; whether it carried a descriptor. */
static char receive_byte(bool *had_descriptor_out)
{
    char control[CMSG_SPACE(sizeof(int))];
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cr_assert_eq(recvmsg(reader->fd, &message, MSG_DONTWAIT), 1);
    *had_descriptor_out = message.msg_controllen > 0;
    return byte;
}

/* ---- messages ---- */

Test(pipe, messages_come_in_order)
{
    for (uint64_t i = 0; i < 500; i++)
        send_one(i);
    for (uint64_t i = 0; i < 500; i++)
        expect(i);
    cr_assert_eq(receive_at_once(), DRAGON_CHANNEL_EMPTY);
}

Test(pipe, a_full_pipe_is_full_until_a_message_is_taken)
{
    for (uint64_t i = 0; i < 1000; i++)
        send_one(i);
    cr_assert_eq(pipe_send_number(writer, 1000, DRAGON_AT_ONCE), DRAGON_CHANNEL_FULL);
    expect(0);
    send_one(1000);
}

static void *receive_in_thread(void *result)
{
    *(int *)result = pipe_receive_number(reader, &(uint64_t){0}, test_soon());
    return NULL;
}

Test(pipe, a_sleeping_reader_is_woken)
{
    pthread_t thread;
    int result = -1;

    for (int i = 0; i < 20; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, receive_in_thread, &result), 0);
        usleep(i % 2 ? 2000 : 0); /* asleep, or not yet: both must do */
        send_one(1);
        pthread_join(thread, NULL);
        cr_assert_eq(result, 0);
    }
}

Test(pipe, a_wait_ends_at_its_deadline)
{
    cr_assert_eq(dragon_pipe_wait(reader, dragon_deadline_after_ns(1000000)), DRAGON_CHANNEL_EMPTY);
    cr_assert_eq(dragon_pipe_wait(reader, DRAGON_AT_ONCE), DRAGON_CHANNEL_EMPTY);
}

/* ---- the end ---- */

Test(pipe, messages_come_before_the_end)
{
    send_one(1);
    send_one(2);
    close_end(writer);
    expect(1);
    expect(2);
    cr_assert_eq(receive_at_once(), DRAGON_PIPE_ENDED);
    cr_assert_eq(pipe_receive_number(reader, &(uint64_t){0}, DRAGON_FOREVER), DRAGON_PIPE_ENDED);
    cr_assert_eq(dragon_pipe_wait(reader, DRAGON_FOREVER), DRAGON_PIPE_ENDED);
}

Test(pipe, the_end_comes_to_a_sleeping_reader)
{
    pthread_t thread;
    int result = -1;

    cr_assert_eq(pthread_create(&thread, NULL, receive_in_thread, &result), 0);
    usleep(2000);
    close_end(writer);
    pthread_join(thread, NULL);
    cr_assert_eq(result, DRAGON_PIPE_ENDED);
}

Test(pipe, a_send_without_a_reader_is_broken)
{
    send_one(1);
    close_end(reader);
    dragon_pipe_hang_up(reader);
    cr_assert_eq(pipe_send_number(writer, 2, DRAGON_FOREVER), DRAGON_PIPE_BROKEN);
    cr_assert_eq(pipe_send_number(writer, 2, DRAGON_FOREVER), DRAGON_PIPE_BROKEN);
}

Test(pipe, the_first_send_without_a_reader_is_broken)
{
    struct dragon_message message = message_of(1);

    close_end(reader);
    cr_assert_eq(dragon_pipe_try_send(writer, &message), DRAGON_PIPE_BROKEN);
}

Test(pipe, one_reading_end_less_is_not_the_end)
{
    int other = dup(reader->fd);

    close_end(reader);
    dragon_pipe_hang_up(reader);
    send_one(1);
    close(other);
}

static void *fill_in_thread(void *result)
{
    int r = 0;

    while (r == 0)
        r = pipe_send_number(writer, 1, test_soon());
    *(int *)result = r;
    return NULL;
}

Test(pipe, a_sender_that_waits_for_room_learns_that_the_reader_went)
{
    pthread_t thread;
    int result = -1;

    cr_assert_eq(pthread_create(&thread, NULL, fill_in_thread, &result), 0);
    while (!dragon_channel_is_full(&writer->channel))
        usleep(100);
    close_end(reader); /* as by a kill: nobody says so */
    pthread_join(thread, NULL);
    cr_assert_eq(result, DRAGON_PIPE_BROKEN);
}

/* ---- the descriptor ---- */

Test(pipe, an_exposed_descriptor_is_readable_exactly_while_there_is_a_message)
{
    cr_assert_eq(dragon_pipe_expose(reader), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_not(is_readable());
        send_one(1);
        cr_assert(is_readable());
        send_one(2);
        expect(1);
        cr_assert(is_readable());
        expect(2);
    }
    cr_assert_not(is_readable());
    close_end(writer);
    cr_assert(is_readable());
}

Test(pipe, an_attempt_to_receive_never_waits_for_a_sender)
{
    struct dragon_mutex *senders = &writer->shared->channel.send_lock;
    struct dragon_message message;

    send_one(1);
    send_one(2);
    cr_assert_eq(dragon_mutex_lock(senders), 0);
    cr_assert_eq(dragon_pipe_try_receive(reader, DRAGON_HOLDER_NONE, &message), 0);
    dragon_mutex_unlock(senders);
    cr_assert_eq(dragon_pipe_expose(reader), 0);
    cr_assert_eq(dragon_mutex_lock(senders), 0);
    cr_assert_eq(dragon_pipe_try_receive(reader, DRAGON_HOLDER_NONE, &message),
                 DRAGON_CHANNEL_BUSY);
    dragon_mutex_unlock(senders);
    expect(2);
    cr_assert(!is_readable());
    cr_assert_eq(dragon_pipe_try_receive(reader, DRAGON_HOLDER_NONE, &message),
                 DRAGON_CHANNEL_EMPTY);
}

Test(pipe, a_descriptor_that_is_exposed_late_knows_of_earlier_messages)
{
    send_one(1);
    expect(1);
    send_one(2);
    cr_assert_eq(dragon_pipe_expose(reader), 0);
    cr_assert(is_readable());
    expect(2);
    cr_assert_not(is_readable());
}

Test(pipe, exposing_an_emptied_pipe_takes_the_byte_back)
{
    send_one(1);
    expect(1);
    cr_assert_eq(dragon_pipe_expose(reader), 0);
    cr_assert_not(is_readable());
}

Test(pipe, a_busy_pipe_moves_no_bytes)
{
    char bytes[8];

    for (uint64_t i = 0; i < 100; i++) {
        send_one(i);
        expect(i);
    }
    cr_assert_eq(recv(reader->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT), 1);
}

Test(pipe, a_descriptor_on_its_way_comes_through_between_messages)
{
    bool had_descriptor;

    send_one(1);
    expect(1); /* its byte is still there */
    cr_assert_eq(dragon_pipe_expect_foreign(writer), 0);
    send_descriptor(0);
    send_one(2);
    cr_assert_eq(dragon_pipe_expose(reader), 0); /* who receives it asks for the descriptor */
    cr_assert_eq(receive_byte(&had_descriptor), 1);
    cr_assert(had_descriptor);
    cr_assert(is_readable(), "the second message has a byte of its own");
    expect(2);
    cr_assert_not(is_readable());
}

/* Each fileno() of a writing end has the next message write a byte of its own. */
Test(pipe, exposing_finds_a_descriptor_behind_any_number_of_bytes)
{
    const unsigned ns[] = {1, 62, 63, 64, 65, 127, 128, 200};
    bool had_descriptor;

    for (size_t i = 0; i < sizeof ns / sizeof *ns; i++) {
        if (i > 0) {
            cr_assert_eq(close(reader->fd) | close(writer->fd), 0);
            open_pipe();
        }
        for (unsigned n = 0; n < ns[i]; n++) {
            cr_assert_eq(dragon_pipe_expect_foreign(writer), 0);
            send_one(n);
        }
        send_descriptor(0);
        cr_assert_eq(dragon_pipe_expose(reader), 0);
        cr_assert_eq(receive_byte(&had_descriptor), 1, "behind %u bytes", ns[i]);
        cr_assert(had_descriptor);
        for (unsigned n = 0; n < ns[i]; n++)
            expect(n);
    }
}

Test(pipe, a_descriptor_on_its_way_outlives_a_wait)
{
    bool had_descriptor;

    send_descriptor(0);
    cr_assert_eq(dragon_pipe_wait(reader, DRAGON_FOREVER), DRAGON_PIPE_FOREIGN);
    cr_assert_eq(receive_at_once(), DRAGON_PIPE_FOREIGN);
    cr_assert_eq(receive_byte(&had_descriptor), 1);
    cr_assert(had_descriptor);
    cr_assert_eq(receive_at_once(), DRAGON_CHANNEL_EMPTY);
}

Test(pipe, bytes_of_others_are_not_taken_away)
{
    cr_assert_eq(write(writer->fd, "", 1), 1);
    send_one(1);
    expect(1);
    cr_assert_eq(receive_at_once(), DRAGON_PIPE_FOREIGN);
    cr_assert_eq(receive_byte(&(bool){0}), 0);
    cr_assert_eq(receive_at_once(), DRAGON_CHANNEL_EMPTY);
}

Test(pipe, a_socket_full_of_foreign_bytes_stops_no_sender)
{
    char bytes[4096] = {0};

    while (send(writer->fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    send_one(1);
    expect(1);
}

/* ---- waiting for many ---- */

#define N_PIPES 100

Test(pipe, a_wait_for_many_tells_which_are_ready)
{
    struct dragon_pipe_waited waited[3] = {{.pipe = reader}, {.fd = writer->fd}, {.fd = -1}};
    int fds[2];

    cr_assert_eq(dragon_os_socket_pair(fds), 0);
    waited[2].fd = fds[0];
    cr_assert_eq(dragon_pipe_wait_any(waited, 3, DRAGON_AT_ONCE), DRAGON_CHANNEL_EMPTY);
    send_one(1);
    cr_assert_eq(dragon_pipe_wait_any(waited, 3, test_soon()), 0);
    cr_assert(waited[0].is_ready && !waited[1].is_ready && !waited[2].is_ready);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    cr_assert_eq(dragon_pipe_wait_any(waited, 3, test_soon()), 0);
    cr_assert(waited[0].is_ready && !waited[1].is_ready && waited[2].is_ready);
    expect(1);
    cr_assert_eq(dragon_pipe_wait_any(waited, 3, test_soon()), 0);
    cr_assert(!waited[0].is_ready && waited[2].is_ready, "its byte is still there, but no message");
    close_end(writer);
    cr_assert_eq(dragon_pipe_wait_any(waited, 1, test_soon()), 0);
    cr_assert(waited[0].is_ready, "at its end");
}

static struct pipe_fixture many[N_PIPES];

static void *send_to_one(void *unused)
{
    (void)unused;
    usleep(2000);
    pipe_send_number(&many[77].writer, 1, DRAGON_AT_ONCE);
    return NULL;
}

Test(pipe, a_wait_for_more_than_a_few_sleeps_and_wakes)
{
    struct dragon_pipe_waited waited[N_PIPES];
    pthread_t thread;

    for (int i = 0; i < N_PIPES; i++) {
        pipe_fixture_open(&many[i], 4);
        waited[i] = (struct dragon_pipe_waited){.pipe = &many[i].reader};
        cr_assert_eq(pipe_send_number(&many[i].writer, 1, DRAGON_AT_ONCE), 0);
        cr_assert_eq(pipe_receive_number(&many[i].reader, &(uint64_t){0}, DRAGON_AT_ONCE), 0);
    }
    cr_assert_eq(pthread_create(&thread, NULL, send_to_one, NULL), 0);
    cr_assert_eq(dragon_pipe_wait_any(waited, N_PIPES, test_soon()), 0);
    for (int i = 0; i < N_PIPES; i++)
        cr_assert_eq(waited[i].is_ready, i == 77);
    pthread_join(thread, NULL);
}

Test(pipe, a_wait_for_nothing_ends_at_its_deadline)
{
    cr_assert_eq(dragon_pipe_wait_any(NULL, 0, dragon_deadline_after_ns(1000000)),
                 DRAGON_CHANNEL_EMPTY);
}
