#include "channel/pipe.h"

#include "base/alloc.h"
#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"
#include "wait/mutex.h"
#include "wait/spin.h"

#include <errno.h>

/* What a pipe's byte is; others in the socket are not ours. */
#define SIGNAL_BYTE 0xd7

/* So many are waited for without an allocation. */
#define N_ON_STACK 64

/* ---- lifetime ---- */

int dragon_pipe_init(struct dragon_object *object, const struct dragon_channel_options *options)
{
    return dragon_error_trace(dragon_channel_init(object, options));
}

/* The channel's before_commit. Under the send lock. */
static int write_signal_locked(struct dragon_channel *channel)
{
    struct dragon_pipe *pipe = (struct dragon_pipe *)channel;
    int r;

    if (dragon_peek(&pipe->shared->is_signalled))
        return 0;
    DRAGON_TEST_POINT("pipe-before-byte");
    r = dragon_os_socket_put(pipe->fd, SIGNAL_BYTE);
    if (r == DRAGON_OS_SOCKET_GONE)
        return dragon_error_origin(-EPIPE);
    if (r < 0)
        return dragon_error_trace(r);
    DRAGON_TEST_POINT("pipe-after-byte");
    dragon_poke(&pipe->shared->is_signalled, 1);
    DRAGON_TEST_POINT("pipe-after-note");
    return 0;
}

int dragon_pipe_open(struct dragon_pipe *pipe, const struct dragon_object *object, int fd)
{
    int r = dragon_channel_open(&pipe->channel, object);

    if (r < 0)
        return dragon_error_trace(r);
    pipe->channel.before_commit = write_signal_locked;
    pipe->fd = fd;
    pipe->shared = object->state;
    dragon_poke(&pipe->n_hang_ups_seen, 0);
    dragon_poke(&pipe->looked_ns, 0);
    return 0;
}

void dragon_pipe_hang_up(struct dragon_pipe *pipe)
{
    dragon_fetch_add(&pipe->shared->n_hang_ups, 1); /* pairs with is_broken */
    dragon_eventcount_wake_all(&pipe->shared->channel.may_send);
}

/* ---- sending ---- */

/* The kernel knows. It is asked when somebody has said that it may have changed, and
 * now and then, as the dead say nothing. */
static bool is_broken(struct dragon_pipe *pipe)
{
    uint32_t n_hang_ups = dragon_observe(&pipe->shared->n_hang_ups);
    int64_t now_ns = dragon_now_ns();

    if (n_hang_ups == dragon_peek(&pipe->n_hang_ups_seen) &&
        now_ns - dragon_peek(&pipe->looked_ns) < DRAGON_PIPE_LOOK_NS)
        return false;
    if (dragon_os_socket_is_gone(pipe->fd))
        return true;
    dragon_poke(&pipe->n_hang_ups_seen, n_hang_ups);
    dragon_poke(&pipe->looked_ns, now_ns);
    return false;
}

/* What the channel says, as a pipe says it. Nobody destroys a pipe's channel: a word that says so
 * was written over. */
static int outcome_of(int r)
{
    if (r == -EPIPE)
        return DRAGON_PIPE_BROKEN;
    if (r == DRAGON_CHANNEL_DESTROYED)
        return dragon_error_origin(-EBADMSG);
    return dragon_error_trace(r);
}

int dragon_pipe_try_send(struct dragon_pipe *pipe, const struct dragon_message *message)
{
    if (is_broken(pipe))
        return DRAGON_PIPE_BROKEN;
    return outcome_of(dragon_channel_try_send(&pipe->channel, message));
}

int dragon_pipe_send(struct dragon_pipe *pipe, const struct dragon_message *message,
                     int64_t deadline_ns)
{
    int64_t look_ns;
    int r;

    do {
        if (is_broken(pipe))
            return DRAGON_PIPE_BROKEN;
        look_ns = dragon_deadline_after_ns(DRAGON_PIPE_BROKEN_NS);
        r = dragon_channel_send(&pipe->channel, message,
                                dragon_deadline_earlier(deadline_ns, look_ns));
    } while (r == DRAGON_CHANNEL_FULL && !dragon_deadline_passed(deadline_ns));
    return outcome_of(r);
}

/* ---- the byte, from the reading end ---- */

static bool has_message(const struct dragon_pipe *pipe)
{
    return dragon_channel_count(&pipe->channel) != 0;
}

static int lock_senders(struct dragon_pipe *pipe)
{
    int r = dragon_mutex_lock(&pipe->shared->channel.send_lock);

    return r < 0 ? dragon_error_trace(r) : 0; /* who died in it left nothing to repair */
}

static void unlock_senders(struct dragon_pipe *pipe)
{
    dragon_mutex_unlock(&pipe->shared->channel.send_lock);
}

/* Take our bytes away, up to what is not ours. */
static int drop_signals(struct dragon_pipe *pipe, enum dragon_os_socket_front *front_out)
{
    size_t n;
    int r;

    for (;;) {
        r = dragon_os_socket_peek(pipe->fd, SIGNAL_BYTE, &n, front_out);
        if (r < 0 || n == 0)
            return dragon_error_trace(r);
        DRAGON_TEST_POINT("pipe-before-drop");
        r = dragon_os_socket_skip(pipe->fd, n);
        if (r < 0)
            return dragon_error_trace(r);
    }
}

/* The channel is empty. The order of the two is what makes a death between them harmless. */
static int take_signal_back_locked(struct dragon_pipe *pipe, enum dragon_os_socket_front *front_out)
{
    dragon_poke(&pipe->shared->is_signalled, 0);
    DRAGON_TEST_POINT("pipe-after-clearing");
    return dragon_error_trace(drop_signals(pipe, front_out));
}

/* What there is to receive, said exactly; before a sleep, as the byte is gone then if
 * there is nothing. 0: a message; _EMPTY; _ENDED; _FOREIGN; -errno. */
static int settle(struct dragon_pipe *pipe)
{
    enum dragon_os_socket_front front = DRAGON_OS_SOCKET_NOTHING;
    bool is_there;
    int r = lock_senders(pipe);

    if (r < 0)
        return r;
    is_there = has_message(pipe);
    if (!is_there)
        r = take_signal_back_locked(pipe, &front);
    unlock_senders(pipe);
    if (r < 0 || is_there)
        return r;
    if (front == DRAGON_OS_SOCKET_END)
        return DRAGON_PIPE_ENDED;
    return front == DRAGON_OS_SOCKET_NOTHING ? DRAGON_CHANNEL_EMPTY : DRAGON_PIPE_FOREIGN;
}

/* What is behind our bytes, of which one stays if there were any. */
static int look_behind_signals(struct dragon_pipe *pipe, enum dragon_os_socket_front *front_out)
{
    size_t n;
    int r;

    for (;;) {
        r = dragon_os_socket_peek(pipe->fd, SIGNAL_BYTE, &n, front_out);
        if (r < 0 || n < DRAGON_OS_SOCKET_LOOK)
            return dragon_error_trace(r);
        r = dragon_os_socket_skip(pipe->fd, n - 1);
        if (r < 0)
            return dragon_error_trace(r);
    }
}

int dragon_pipe_expose(struct dragon_pipe *pipe)
{
    enum dragon_os_socket_front front;
    int r;

    dragon_exchange(&pipe->shared->is_exposed, 1);
    r = lock_senders(pipe);
    if (r < 0)
        return r;
    if (!has_message(pipe)) {
        r = take_signal_back_locked(pipe, &front);
    } else {
        r = look_behind_signals(pipe, &front);
        if (r == 0 && front == DRAGON_OS_SOCKET_FD)
            r = take_signal_back_locked(pipe, &front);
    }
    unlock_senders(pipe);
    return dragon_error_trace(r);
}

int dragon_pipe_expect_foreign(struct dragon_pipe *pipe)
{
    int r = lock_senders(pipe);

    if (r < 0)
        return r;
    dragon_poke(&pipe->shared->is_signalled, 0);
    unlock_senders(pipe);
    return 0;
}

/* ---- receiving ---- */

/* After a message was taken. */
static void keep_exact(struct dragon_pipe *pipe)
{
    if (dragon_peek(&pipe->shared->is_exposed) && !has_message(pipe))
        (void)settle(pipe);
}

int dragon_pipe_try_receive(struct dragon_pipe *pipe, uint32_t holder,
                            struct dragon_message *message_out)
{
    int r;

    if (dragon_peek(&pipe->shared->is_exposed))
        return has_message(pipe) ? DRAGON_CHANNEL_BUSY : DRAGON_CHANNEL_EMPTY;
    r = dragon_channel_try_receive(&pipe->channel, holder, message_out);
    if (r <= 0)
        keep_exact(pipe); /* it was exposed meanwhile */
    return outcome_of(r);
}

static bool comes_while_looking(struct dragon_pipe *pipe)
{
    struct dragon_spin_round round = dragon_spin_begin(&pipe->channel.receive_spin);
    bool is_there;

    while (!(is_there = has_message(pipe)) && dragon_spin_again(&round))
        ;
    dragon_spin_end(&pipe->channel.receive_spin, &round, is_there);
    return is_there;
}

/* 0: look again; _INTERRUPTED; -errno. is_woken_out: the socket has something to say. */
static int sleep_once(struct dragon_pipe *pipe, int64_t deadline_ns, bool *is_woken_out)
{
    struct dragon_os_poll_item item = {.fd = pipe->fd};
    int64_t look_ns = dragon_deadline_after_ns(DRAGON_EVENTCOUNT_PARK_NS);
    int r = dragon_os_poll(&item, 1, dragon_deadline_earlier(deadline_ns, look_ns));

    *is_woken_out = item.is_ready;
    if (r == DRAGON_OS_SOCKET_INTERRUPTED)
        return has_message(pipe) ? 0 : DRAGON_CHANNEL_INTERRUPTED;
    return dragon_error_trace(r);
}

int dragon_pipe_wait(struct dragon_pipe *pipe, int64_t deadline_ns)
{
    bool is_last = dragon_deadline_passed(deadline_ns);
    bool is_woken = false;
    int r;

    if (has_message(pipe) || (!is_last && comes_while_looking(pipe)))
        return 0;
    for (;;) {
        /* A word that is not set lies only while its sender is about to write the byte. */
        if (is_last || is_woken || dragon_peek(&pipe->shared->is_signalled)) {
            r = settle(pipe);
            if (r != DRAGON_CHANNEL_EMPTY || is_last)
                return dragon_error_trace(r);
        }
        r = sleep_once(pipe, deadline_ns, &is_woken);
        if (r != 0)
            return dragon_error_trace(r);
        /* The byte comes before the message, by as much as two stores take. */
        if (has_message(pipe) || (is_woken && comes_while_looking(pipe)))
            return 0;
        is_last = dragon_deadline_passed(deadline_ns);
    }
}

int dragon_pipe_receive(struct dragon_pipe *pipe, uint32_t holder,
                        struct dragon_message *message_out, int64_t deadline_ns)
{
    int r;

    for (;;) {
        r = dragon_channel_receive(&pipe->channel, holder, message_out, DRAGON_AT_ONCE);
        if (r <= 0)
            keep_exact(pipe);
        if (r != DRAGON_CHANNEL_EMPTY)
            return outcome_of(r);
        r = dragon_pipe_wait(pipe, deadline_ns);
        if (r != 0)
            return dragon_error_trace(r);
    }
}

/* ---- waiting for many ---- */

static bool any_message(const struct dragon_pipe_waited *waited, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (waited[i].pipe && has_message(waited[i].pipe))
            return true;
    return false;
}

/* The spin of one of the pipes stands for all. */
static bool any_comes_while_looking(const struct dragon_pipe_waited *waited, size_t n)
{
    struct dragon_spin none = {0}, *spin = &none;
    struct dragon_spin_round round;
    bool is_there;

    for (size_t i = 0; i < n; i++)
        if (waited[i].pipe)
            spin = &waited[i].pipe->channel.receive_spin;
    if (spin == &none)
        return false;
    round = dragon_spin_begin(spin);
    while (!(is_there = any_message(waited, n)) && dragon_spin_again(&round))
        ;
    dragon_spin_end(spin, &round, is_there);
    return is_there;
}

static int descriptor_of(const struct dragon_pipe_waited *waited)
{
    return waited->pipe ? waited->pipe->fd : waited->fd;
}

/* Settle those pipes whose byte would end a sleep at once. Above 0: one of them has
 * something to receive. */
static int settle_signalled(struct dragon_pipe_waited *waited, size_t n)
{
    int r, found = 0;

    for (size_t i = 0; i < n; i++) {
        if (!waited[i].pipe || !dragon_peek(&waited[i].pipe->shared->is_signalled))
            continue;
        r = settle(waited[i].pipe);
        if (r < 0)
            return r;
        if (r != DRAGON_CHANNEL_EMPTY)
            found = 1;
    }
    return found;
}

/* Sleep, and judge. 0: is_ready of all was set, of some to true; _EMPTY: none is. */
static int poll_once(struct dragon_pipe_waited *waited, struct dragon_os_poll_item *items, size_t n,
                     int64_t deadline_ns)
{
    bool found = false;
    int r;

    for (size_t i = 0; i < n; i++)
        items[i].fd = descriptor_of(&waited[i]);
    r = dragon_os_poll(items, n, deadline_ns);
    if (r == DRAGON_OS_SOCKET_INTERRUPTED)
        return DRAGON_CHANNEL_INTERRUPTED;
    if (r < 0)
        return dragon_error_trace(r);
    for (size_t i = 0; i < n; i++) {
        waited[i].is_ready = items[i].is_ready;
        if (waited[i].pipe && has_message(waited[i].pipe)) {
            waited[i].is_ready = true;
        } else if (waited[i].pipe && items[i].is_ready) {
            r = settle(waited[i].pipe);
            if (r < 0)
                return r;
            waited[i].is_ready = r != DRAGON_CHANNEL_EMPTY;
        }
        found |= waited[i].is_ready;
    }
    return found ? 0 : DRAGON_CHANNEL_EMPTY;
}

static int wait_any(struct dragon_pipe_waited *waited, struct dragon_os_poll_item *items, size_t n,
                    int64_t deadline_ns)
{
    bool is_last = dragon_deadline_passed(deadline_ns);
    int64_t look_ns;
    int r;

    if (!is_last && !any_message(waited, n))
        (void)any_comes_while_looking(waited, n);
    for (;;) {
        /* One look at the system, too, when there are messages: for descriptors, and for
         * pipes that have ended. */
        r = is_last || any_message(waited, n) ? 1 : settle_signalled(waited, n);
        if (r < 0)
            return dragon_error_trace(r);
        look_ns = r > 0 ? DRAGON_AT_ONCE : dragon_deadline_after_ns(DRAGON_EVENTCOUNT_PARK_NS);
        r = poll_once(waited, items, n, dragon_deadline_earlier(deadline_ns, look_ns));
        if (r != DRAGON_CHANNEL_EMPTY || is_last)
            return dragon_error_trace(r);
        is_last = dragon_deadline_passed(deadline_ns);
    }
}

int dragon_pipe_wait_any(struct dragon_pipe_waited *waited, size_t n, int64_t deadline_ns)
{
    struct dragon_os_poll_item on_stack[N_ON_STACK], *items = on_stack;
    int r;

    if (n > N_ON_STACK)
        items = dragon_alloc_zeroed(n * sizeof *items);
    if (!items)
        return dragon_error_origin(-ENOMEM);
    r = wait_any(waited, items, n, deadline_ns);
    if (items != on_stack)
        dragon_alloc_free(items);
    return dragon_error_trace(r);
}
