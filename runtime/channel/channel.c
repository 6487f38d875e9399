#include "channel/channel.h"

#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"
#include "channel/fini.h"
#include "channel/ring.h"
#include "memory/pool.h"
#include "memory/uses.h"
#include "wait/doorbell.h"
#include "wait/wait_until.h"

#include <errno.h>
#include <string.h>

#define FIRST_RING_SLOTS 64u
#define LARGEST_RING_SLOTS 65536u

/* How often a non-blocking operation looks at a busy lock: its holder is
 * between two stores, unless it lost its core. */
#define BUSY_LOOKS 64

/* ---- rings ---- */

static uint32_t first_ring_slots(uint64_t max_messages)
{
    uint32_t n = 1;

    while (n < FIRST_RING_SLOTS && n < max_messages)
        n *= 2;
    return n;
}

static int find_ring(struct dragon_pool *pool, uint64_t offset, struct dragon_ring **ring_out)
{
    struct dragon_handle handle;
    uint32_t n_slots;

    return dragon_error_trace(dragon_ring_find(pool, offset, ring_out, &handle, &n_slots));
}

/* The holder of a block that is known to live. */
static void set_holder(struct dragon_pool *pool, const struct dragon_handle *handle,
                       uint32_t holder)
{
    uint32_t before;

    (void)dragon_pool_hold(pool, handle, holder, &before);
}

/* ---- lifetime ---- */

int dragon_channel_init(struct dragon_object *object, const struct dragon_channel_options *options)
{
    struct dragon_channel_shared *shared = object->state;
    struct dragon_handle ring;
    int r;

    r = dragon_ring_create(object->pool, first_ring_slots(options->max_messages), 0, object->holder,
                           &ring);
    if (r != 0)
        return dragon_error_trace(r);
    r = dragon_mutex_init(&shared->send_lock);
    if (r == 0)
        r = dragon_mutex_init(&shared->receive_lock);
    if (r < 0) {
        dragon_pool_free(object->pool, &ring);
        return dragon_error_trace(r);
    }
    shared->max_messages = options->max_messages;
    shared->max_bytes = options->max_bytes;
    dragon_poke(&shared->head_ring, ring.offset);
    dragon_publish(&shared->tail_ring, ring.offset);
    DRAGON_TEST_POINT("channel-before-kind");
    dragon_object_begins_with(object, DRAGON_CHANNEL_KIND);
    DRAGON_TEST_POINT("channel-after-kind");
    set_holder(object->pool, &ring, DRAGON_HOLDER_PART);
    return 0;
}

int dragon_channel_open(struct dragon_channel *channel, const struct dragon_object *object)
{
    struct dragon_ring *ring;
    int r;

    *channel = (struct dragon_channel){
        .object = *object,
        .holder = object->holder < DRAGON_HOLDER_FIRST_SLOT ? DRAGON_HOLDER_PART : object->holder,
        .shared = object->state,
    };
    if (channel->shared->max_messages == 0)
        return dragon_error_origin(-EBADMSG);
    r = find_ring(object->pool, dragon_observe(&channel->shared->tail_ring), &ring);
    return dragon_error_trace(r);
}

/* ---- locks ---- */

/* Nothing behind these locks needs repair (see channel.h). */
static int lock(struct dragon_mutex *mutex)
{
    int r = dragon_mutex_lock(mutex);

    return r < 0 ? dragon_error_trace(r) : 0;
}

static int try_lock(struct dragon_mutex *mutex)
{
    int r = DRAGON_MUTEX_BUSY;

    for (int i = 0; i < BUSY_LOOKS; i++) {
        r = dragon_mutex_try_lock(mutex);
        if (r != DRAGON_MUTEX_BUSY)
            break;
        dragon_pause();
    }
    if (r == DRAGON_MUTEX_BUSY)
        return DRAGON_CHANNEL_BUSY;
    return r < 0 ? dragon_error_trace(r) : 0;
}

/* ---- sending ---- */

static uint64_t payload_bytes(const struct dragon_message *message)
{
    return message->size_bytes + (uint64_t)message->block_lines * 64;
}

static bool is_full_for(const struct dragon_channel_shared *shared, uint64_t head, uint64_t tail)
{
    if (head - tail >= shared->max_messages)
        return true;
    /* Signed: deaths may have let one count run ahead of the other. */
    return shared->max_bytes <= INT64_MAX && head != tail &&
           (int64_t)(dragon_peek(&shared->bytes_in) - dragon_peek(&shared->bytes_out)) >=
               (int64_t)shared->max_bytes;
}

bool dragon_channel_is_full(const struct dragon_channel *channel)
{
    uint64_t tail = dragon_observe(&channel->shared->tail);

    return is_full_for(channel->shared, dragon_observe(&channel->shared->head), tail);
}

/* The ring that position head goes to. */
static int send_ring_locked(struct dragon_channel *channel)
{
    uint64_t offset = dragon_peek(&channel->shared->head_ring);

    if (dragon_ring_view_is_of(&channel->send_ring, offset))
        return 0;
    return dragon_error_trace(dragon_ring_view(channel->object.pool, offset, &channel->send_ring));
}

/* Go to the next ring. Also done for a producer that linked it and died. */
static int enter_next_ring_locked(struct dragon_channel *channel)
{
    uint64_t next = dragon_peek(&channel->send_ring.ring->next_offset);

    dragon_publish(&channel->shared->head_ring, next);
    return dragon_error_trace(send_ring_locked(channel));
}

static int link_larger_ring_locked(struct dragon_channel *channel, uint64_t head)
{
    struct dragon_ring *ring = channel->send_ring.ring;
    uint32_t n_now = channel->send_ring.n_slots;
    uint32_t n_slots = n_now < LARGEST_RING_SLOTS ? 2 * n_now : n_now;
    struct dragon_handle next;
    int r = dragon_ring_create(channel->object.pool, n_slots, head, channel->holder, &next);

    if (r == DRAGON_POOL_FULL)
        return DRAGON_CHANNEL_POOL_FULL;
    if (r < 0)
        return dragon_error_trace(r);
    dragon_poke(&ring->next_generation, next.generation);
    dragon_poke(&ring->next_offset, next.offset);
    DRAGON_TEST_POINT("channel-before-ring-end");
    dragon_publish(&ring->end, head); /* pairs with receive_ring_locked */
    DRAGON_TEST_POINT("channel-after-ring-end");
    set_holder(channel->object.pool, &next, DRAGON_HOLDER_PART);
    return dragon_error_trace(enter_next_ring_locked(channel));
}

static bool has_slot(const struct dragon_ring_view *view, uint64_t head, uint64_t tail)
{
    uint64_t first_here = tail > view->base ? tail : view->base;

    return head - first_here < view->n_slots;
}

/* Make sure that position head may be written: first by the tail that was last
 * seen, as a look at the real one takes its line away from the receivers. */
static int make_room_locked(struct dragon_channel *channel, uint64_t head)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint64_t tail = dragon_peek(&shared->tail_seen);

    if (!is_full_for(shared, head, tail) && has_slot(&channel->send_ring, head, tail))
        return 0;
    tail = dragon_observe(&shared->tail); /* pairs with pop_locked */
    dragon_poke(&shared->tail_seen, tail);
    if (is_full_for(shared, head, tail))
        return DRAGON_CHANNEL_FULL;
    if (has_slot(&channel->send_ring, head, tail))
        return 0;
    return dragon_error_trace(link_larger_ring_locked(channel, head));
}

/* Copied by whole lines: of a known size, so without a loop. */
static void write_slot(struct dragon_message *slot, const struct dragon_message *message)
{
    if (dragon_message_is_short(message))
        memcpy(slot, message, DRAGON_MESSAGE_LINE_BYTES);
    else
        memcpy(slot, message, sizeof *slot);
}

static int push_locked(struct dragon_channel *channel, const struct dragon_message *message)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint64_t head = dragon_peek(&shared->head);
    int r = send_ring_locked(channel);

    if (r == 0 && dragon_peek(&channel->send_ring.ring->end) == head)
        r = enter_next_ring_locked(channel);
    if (r == 0)
        r = make_room_locked(channel, head);
    if (r != 0)
        return dragon_error_trace(r);
    /* After the look for room, since destroying makes room: who found the channel
     * full before must not get his message in then. */
    if (dragon_channel_is_destroyed(channel))
        return DRAGON_CHANNEL_DESTROYED;
    if (channel->before_commit) {
        r = channel->before_commit(channel);
        if (r < 0)
            return dragon_error_trace(r);
    }
    write_slot(dragon_ring_slot(&channel->send_ring, head), message);
    dragon_poke(&shared->bytes_in, dragon_peek(&shared->bytes_in) + payload_bytes(message));
    DRAGON_TEST_POINT("channel-before-head-store");
    dragon_publish(&shared->head, head + 1); /* the commit; pairs with pop_locked */
    DRAGON_TEST_POINT("channel-after-head-store");
    return 0;
}

static void ring_poller(struct dragon_pool *pool, uint64_t entry)
{
    uint64_t offset = entry / 256 * 64;
    struct dragon_doorbell *doorbell;

    if (!entry || !dragon_pool_contains(pool, offset, sizeof *doorbell))
        return;
    doorbell = dragon_pool_at(pool, offset);
    if (dragon_doorbell_is_one(doorbell))
        dragon_doorbell_ring(doorbell, entry % 256);
}

static void ring_pollers(struct dragon_channel *channel)
{
    struct dragon_channel_shared *shared = channel->shared;

    if (!dragon_exchange(&shared->has_pollers, 0))
        return;
    for (int i = 0; i < DRAGON_CHANNEL_N_POLLERS; i++)
        ring_poller(channel->object.pool, dragon_exchange(&shared->pollers[i], 0));
}

/* The commit was followed by a fence (the unlock; pairs with dragon_channel_watch):
 * whoever does not see the watchers' flag here was seen by them. */
static void wake_watchers(struct dragon_channel_shared *shared)
{
    if (dragon_peek(&shared->has_watchers) && dragon_exchange(&shared->has_watchers, 0))
        dragon_eventcount_wake_all(&shared->watchers);
}

/* The unlock before this was a fence: it orders the commit before these looks. */
static void after_send(struct dragon_channel *channel)
{
    dragon_eventcount_wake_one_fenced(&channel->shared->may_receive);
    if (dragon_peek(&channel->shared->has_pollers))
        ring_pollers(channel);
    wake_watchers(channel->shared);
}

int dragon_channel_try_send(struct dragon_channel *channel, const struct dragon_message *message)
{
    int r;

    dragon_check(message->size_bytes <= DRAGON_MESSAGE_INLINE_BYTES);
    r = try_lock(&channel->shared->send_lock);
    if (r != 0)
        return dragon_error_trace(r);
    r = push_locked(channel, message);
    dragon_mutex_unlock(&channel->shared->send_lock);
    if (r == 0)
        after_send(channel);
    return dragon_error_trace(r);
}

static int send_once(struct dragon_channel *channel, const struct dragon_message *message)
{
    int r = lock(&channel->shared->send_lock);

    if (r < 0)
        return dragon_error_trace(r);
    r = push_locked(channel, message);
    dragon_mutex_unlock(&channel->shared->send_lock);
    if (r == 0)
        after_send(channel);
    return dragon_error_trace(r);
}

static bool has_room(void *channel)
{
    return !dragon_channel_is_full(channel) || dragon_channel_is_destroyed(channel);
}

static bool has_message(void *channel)
{
    return dragon_channel_count(channel) != 0 || dragon_channel_is_destroyed(channel);
}

static bool has_nothing_pending(void *channel)
{
    return dragon_channel_pending(channel) == 0;
}

/* 0: time to look, as the condition holds or time is up; _INTERRUPTED; _DESTROYED. */
static int wait_until(struct dragon_channel *channel, struct dragon_eventcount *eventcount,
                      struct dragon_spin *spin, bool (*ready)(void *), int64_t deadline_ns)
{
    int r = dragon_wait_until(eventcount, spin, ready, channel, deadline_ns);

    if (r == DRAGON_WAIT_INTERRUPTED)
        return DRAGON_CHANNEL_INTERRUPTED;
    if (r == 0 && dragon_channel_is_destroyed(channel))
        return DRAGON_CHANNEL_DESTROYED;
    return r < 0 ? dragon_error_trace(r) : 0;
}

int dragon_channel_send(struct dragon_channel *channel, const struct dragon_message *message,
                        int64_t deadline_ns)
{
    int r;

    dragon_check(message->size_bytes <= DRAGON_MESSAGE_INLINE_BYTES);
    for (;;) {
        r = send_once(channel, message);
        if (r != DRAGON_CHANNEL_FULL || dragon_deadline_passed(deadline_ns))
            return dragon_error_trace(r);
        r = wait_until(channel, &channel->shared->may_send, &channel->send_spin, has_room,
                       deadline_ns);
        if (r != 0)
            return dragon_error_trace(r);
    }
}

/* ---- receiving ---- */

/* The ring that position tail lies in. An emptied ring that has a next one is
 * left and freed; the store of tail_ring is what decides who frees it. Who dies
 * between the two held it. */
static int receive_ring_locked(struct dragon_channel *channel, uint64_t tail)
{
    struct dragon_channel_shared *shared = channel->shared;
    struct dragon_pool *pool = channel->object.pool;
    struct dragon_ring_view *view = &channel->receive_ring;
    uint64_t offset = dragon_peek(&shared->tail_ring);
    bool is_first = true;
    struct dragon_handle old;
    int r = 0;

    for (;;) {
        if (!dragon_ring_view_is_of(view, offset))
            r = dragon_ring_view(pool, offset, view);
        /* A ring begins where the one before it ends, and holds something. */
        if (r == 0 &&
            ((!is_first && view->base != tail) || dragon_observe(&view->ring->end) <= view->base))
            r = dragon_error_origin(-EBADMSG);
        if (r < 0)
            return dragon_error_trace(r);
        if (dragon_observe(&view->ring->end) != tail)
            return 0;
        is_first = false;
        old = dragon_pool_handle(pool, offset, dragon_read_once(&view->ring->generation));
        offset = dragon_peek(&view->ring->next_offset);
        set_holder(pool, &old, channel->holder);
        DRAGON_TEST_POINT("channel-before-ring-leave");
        dragon_publish(&shared->tail_ring, offset);
        DRAGON_TEST_POINT("channel-before-ring-free");
        dragon_pool_free(pool, &old);
    }
}

/* What the slot says is read once: others can write it. -EBADMSG: no message. */
static int read_slot(const struct dragon_message *slot, struct dragon_message *message_out)
{
    memcpy(message_out, slot, DRAGON_MESSAGE_LINE_BYTES);
    if (!dragon_message_is_short(message_out))
        memcpy((char *)message_out + DRAGON_MESSAGE_LINE_BYTES,
               (const char *)slot + DRAGON_MESSAGE_LINE_BYTES, DRAGON_MESSAGE_LINE_BYTES);
    if (message_out->size_bytes <= DRAGON_MESSAGE_INLINE_BYTES)
        return 0;
    *message_out = (struct dragon_message){0};
    return dragon_error_origin(-EBADMSG);
}

static bool is_empty_locked(struct dragon_channel_shared *shared, uint64_t tail)
{
    uint64_t head;

    if (dragon_peek(&shared->head_seen) != tail)
        return false;
    head = dragon_observe(&shared->head); /* pairs with push_locked */
    dragon_poke(&shared->head_seen, head);
    return head == tail;
}

/* That there are as many messages as the ring has slots, at the most. Somebody may
 * have written over the positions; without this look a channel could be asked for
 * 2^64 messages, one after the other. */
static bool is_in_ring(const struct dragon_channel *channel, uint64_t tail)
{
    const struct dragon_ring_view *view = &channel->receive_ring;
    uint64_t end = dragon_observe(&view->ring->end);
    uint64_t head = dragon_peek(&channel->shared->head_seen);

    return tail >= view->base && (head < end ? head : end) - tail <= view->n_slots;
}

/* Where the oldest message is. NULL: nothing can be taken; why, into r_out: _EMPTY
 * or an error. */
static const struct dragon_message *oldest_locked(struct dragon_channel *channel, uint64_t tail,
                                                  int *r_out)
{
    *r_out = DRAGON_CHANNEL_EMPTY;
    if (is_empty_locked(channel->shared, tail))
        return NULL;
    *r_out = dragon_error_trace(receive_ring_locked(channel, tail));
    if (*r_out < 0)
        return NULL;
    if (is_in_ring(channel, tail))
        return dragon_ring_slot(&channel->receive_ring, tail);
    *r_out = dragon_error_origin(-EBADMSG);
    return NULL;
}

static void commit_receive_locked(struct dragon_channel_shared *shared, uint64_t tail,
                                  const struct dragon_message *message)
{
    dragon_poke(&shared->bytes_out, dragon_peek(&shared->bytes_out) + payload_bytes(message));
    DRAGON_TEST_POINT("channel-before-tail-store");
    dragon_publish(&shared->tail, tail + 1); /* the commit; pairs with push_locked */
    DRAGON_TEST_POINT("channel-after-tail-store");
}

static int hold_block(struct dragon_pool *pool, const struct dragon_message *message,
                      uint32_t holder)
{
    struct dragon_handle handle;
    uint32_t before;

    if (holder == DRAGON_HOLDER_NONE || !dragon_message_has_block(message))
        return 0;
    handle = dragon_pool_handle(pool, message->block_offset, message->block_generation);
    return dragon_error_trace(dragon_pool_hold(pool, &handle, holder, &before));
}

/* The block is the receiver's before the message is: see channel/in_flight.h. A
 * message that makes no sense is taken like any other. */
static int pop_locked(struct dragon_channel *channel, uint32_t holder,
                      struct dragon_message *message_out)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint64_t tail = dragon_peek(&shared->tail);
    int r;
    const struct dragon_message *slot = oldest_locked(channel, tail, &r);

    if (!slot)
        return dragon_error_trace(r);
    r = read_slot(slot, message_out);
    if (r == 0)
        r = hold_block(channel->object.pool, message_out, holder);
    commit_receive_locked(shared, tail, message_out);
    return dragon_error_trace(r);
}

/* The unlock before this was a fence, as before after_send. */
static void after_receive(struct dragon_channel *channel)
{
    if (channel->shared->max_messages != DRAGON_CHANNEL_UNBOUNDED ||
        channel->shared->max_bytes != DRAGON_CHANNEL_UNBOUNDED)
        dragon_eventcount_wake_one_fenced(&channel->shared->may_send);
    wake_watchers(channel->shared);
}

/* An empty channel costs its consumers no lock, and one that was seen to have
 * more no look at the senders' line. Only a hint: it is asked again under the lock. */
static bool looks_empty(const struct dragon_channel_shared *shared)
{
    uint64_t tail = dragon_peek(&shared->tail);

    return dragon_peek(&shared->head_seen) == tail && dragon_peek(&shared->head) == tail;
}

int dragon_channel_try_receive(struct dragon_channel *channel, uint32_t holder,
                               struct dragon_message *message_out)
{
    int r;

    if (looks_empty(channel->shared))
        return DRAGON_CHANNEL_EMPTY;
    r = try_lock(&channel->shared->receive_lock);
    if (r != 0)
        return dragon_error_trace(r);
    r = pop_locked(channel, holder, message_out);
    dragon_mutex_unlock(&channel->shared->receive_lock);
    if (r != DRAGON_CHANNEL_EMPTY)
        after_receive(channel);
    return dragon_error_trace(r);
}

static int receive_once(struct dragon_channel *channel, uint32_t holder,
                        struct dragon_message *message_out)
{
    int r;

    if (looks_empty(channel->shared))
        return DRAGON_CHANNEL_EMPTY;
    r = lock(&channel->shared->receive_lock);
    if (r < 0)
        return dragon_error_trace(r);
    r = pop_locked(channel, holder, message_out);
    dragon_mutex_unlock(&channel->shared->receive_lock);
    if (r != DRAGON_CHANNEL_EMPTY)
        after_receive(channel);
    return dragon_error_trace(r);
}

static int wait_for_message(struct dragon_channel *channel, int64_t deadline_ns)
{
    return wait_until(channel, &channel->shared->may_receive, &channel->receive_spin, has_message,
                      deadline_ns);
}

int dragon_channel_receive(struct dragon_channel *channel, uint32_t holder,
                           struct dragon_message *message_out, int64_t deadline_ns)
{
    int r;

    for (;;) {
        r = receive_once(channel, holder, message_out);
        if (r != DRAGON_CHANNEL_EMPTY || dragon_deadline_passed(deadline_ns))
            return dragon_error_trace(r);
        r = wait_for_message(channel, deadline_ns);
        if (r != 0)
            return dragon_error_trace(r);
    }
}

int dragon_channel_wait(struct dragon_channel *channel, int64_t deadline_ns)
{
    int r;

    while (dragon_channel_count(channel) == 0) {
        if (dragon_deadline_passed(deadline_ns))
            return DRAGON_CHANNEL_EMPTY;
        r = wait_for_message(channel, deadline_ns);
        if (r != 0)
            return dragon_error_trace(r);
    }
    /* The wake that brought us here may have been meant for somebody who
     * would take the message: pass it on. */
    dragon_eventcount_wake_one(&channel->shared->may_receive);
    return 0;
}

/* ---- messages that are done ---- */

uint64_t dragon_channel_pending(const struct dragon_channel *channel)
{
    uint64_t n_done = dragon_observe(&channel->shared->n_done);

    return dragon_observe(&channel->shared->head) - n_done;
}

int dragon_channel_done(struct dragon_channel *channel)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint64_t n_done = dragon_observe(&shared->n_done);

    do {
        if (n_done == dragon_observe(&shared->head))
            return DRAGON_CHANNEL_TOO_MANY_DONE;
    } while (!dragon_replace(&shared->n_done, &n_done, n_done + 1));
    if (dragon_channel_pending(channel) == 0)
        dragon_eventcount_wake_all(&shared->all_done);
    return 0;
}

int dragon_channel_join(struct dragon_channel *channel, int64_t deadline_ns)
{
    struct dragon_spin spin = {0};
    int r =
        wait_until(channel, &channel->shared->all_done, &spin, has_nothing_pending, deadline_ns);

    if (r != 0)
        return dragon_error_trace(r);
    return has_nothing_pending(channel) ? 0 : DRAGON_CHANNEL_PENDING;
}

/* ---- destroying ---- */

/* Drop the oldest message: its block is freed before the message is taken, so that
 * who dies between the two leaves a message that names nothing. */
static int discard_locked(struct dragon_channel *channel, struct dragon_garbage *garbage)
{
    struct dragon_channel_shared *shared = channel->shared;
    struct dragon_pool *pool = channel->object.pool;
    uint64_t tail = dragon_peek(&shared->tail);
    struct dragon_message message;
    struct dragon_handle block;
    int r;
    const struct dragon_message *slot = oldest_locked(channel, tail, &r);

    if (!slot)
        return dragon_error_trace(r);
    if (read_slot(slot, &message) == 0 && dragon_message_has_block(&message)) {
        block = dragon_pool_handle(pool, message.block_offset, message.block_generation);
        DRAGON_TEST_POINT("channel-before-discard");
        dragon_uses_free_block(&block, garbage);
    }
    commit_receive_locked(shared, tail, &message);
    return 0;
}

static void discard_messages(struct dragon_channel *channel, struct dragon_garbage *garbage)
{
    int r = 0;

    while (r == 0 && !looks_empty(channel->shared) && lock(&channel->shared->receive_lock) == 0) {
        r = discard_locked(channel, garbage);
        dragon_mutex_unlock(&channel->shared->receive_lock);
    }
}

/* From the oldest ring on: usually one, more if a sender died after it had
 * linked another. Each is its freer's before the channel forgets it, so that who dies
 * in between leaves a ring to the channel or to the sweep. */
static void free_rings(struct dragon_object *object, struct dragon_channel_shared *shared)
{
    uint64_t offset = dragon_observe(&shared->tail_ring);
    struct dragon_ring *ring;
    struct dragon_handle handle;
    uint32_t n_slots;

    while (dragon_ring_find(object->pool, offset, &ring, &handle, &n_slots) == 0) {
        bool is_last = dragon_peek(&ring->end) == DRAGON_RING_OPEN;

        offset = is_last ? 0 : dragon_peek(&ring->next_offset);
        set_holder(object->pool, &handle, object->holder);
        DRAGON_TEST_POINT("channel-before-ring-forgotten");
        dragon_publish(&shared->tail_ring, offset);
        DRAGON_TEST_POINT("channel-after-ring-forgotten");
        dragon_pool_free(object->pool, &handle);
    }
}

void dragon_channel_fini(struct dragon_object *object, struct dragon_garbage *garbage)
{
    struct dragon_channel channel;

    if (dragon_channel_open(&channel, object) < 0)
        return; /* nothing is left of it */
    discard_messages(&channel, garbage);
    free_rings(object, channel.shared);
}

int dragon_channel_create(struct dragon_pool *pool, const struct dragon_channel_options *options,
                          struct dragon_channel *channel_out)
{
    struct dragon_object object;
    int r = dragon_object_create(pool, DRAGON_CHANNEL_KIND, sizeof(struct dragon_channel_shared),
                                 DRAGON_HOLDER_SHARED, &object);

    if (r != 0)
        return dragon_error_trace(r);
    r = dragon_channel_init(&object, options);
    if (r != 0)
        goto close_object;
    r = dragon_channel_open(channel_out, &object);
    if (r == 0)
        return 0;

close_object:
    dragon_object_close(&object, dragon_fini);
    return dragon_error_trace(r);
}

int dragon_channel_attach(struct dragon_pool *pool, const struct dragon_handle *handle,
                          struct dragon_channel *channel_out)
{
    struct dragon_object object;
    int r = dragon_object_open(pool, handle, DRAGON_CHANNEL_KIND,
                               sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED, &object);

    if (r != 0)
        return dragon_error_trace(r);
    r = dragon_channel_open(channel_out, &object);
    if (r < 0)
        dragon_object_close(&object, dragon_fini);
    return dragon_error_trace(r);
}

void dragon_channel_close(struct dragon_channel *channel)
{
    dragon_object_close(&channel->object, dragon_fini);
}

bool dragon_channel_destroy(struct dragon_channel *channel)
{
    struct dragon_channel_shared *shared = channel->shared;
    struct dragon_garbage garbage = {.pool = channel->object.pool, .freer = channel->object.holder};
    bool is_mine = dragon_exchange(&shared->is_destroyed, 1) == 0;

    /* A sender that has not looked yet may still put something in: that goes
     * with the object (dragon_channel_fini). */
    discard_messages(channel, &garbage);
    dragon_garbage_free(&garbage, dragon_fini);
    dragon_eventcount_wake_all(&shared->may_receive);
    dragon_eventcount_wake_all(&shared->may_send);
    dragon_eventcount_wake_all(&shared->watchers);
    ring_pollers(channel);
    return is_mine;
}

/* ---- watching ---- */

bool dragon_channel_has_event(const struct dragon_channel *channel, unsigned events)
{
    uint64_t count = dragon_channel_count(channel);
    bool is_full = dragon_channel_is_full(channel);

    return ((events & DRAGON_CHANNEL_EVENT_MESSAGE) && count != 0) ||
           ((events & DRAGON_CHANNEL_EVENT_EMPTY) && count == 0) ||
           ((events & DRAGON_CHANNEL_EVENT_ROOM) && !is_full) ||
           ((events & DRAGON_CHANNEL_EVENT_FULL) && is_full);
}

int dragon_channel_watch(struct dragon_channel *channel, unsigned events, int64_t deadline_ns)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint32_t key;
    int r;

    while (!dragon_channel_has_event(channel, events)) {
        if (dragon_channel_is_destroyed(channel))
            return DRAGON_CHANNEL_DESTROYED;
        if (dragon_deadline_passed(deadline_ns))
            return DRAGON_CHANNEL_NOT_YET;
        key = dragon_eventcount_prepare(&shared->watchers);
        dragon_exchange(&shared->has_watchers, 1);
        dragon_fence(); /* pairs with wake_watchers: our look comes after the flag */
        if (dragon_channel_has_event(channel, events) || dragon_channel_is_destroyed(channel))
            continue;
        r = dragon_eventcount_park(&shared->watchers, key, deadline_ns);
        if (r == DRAGON_EVENTCOUNT_INTERRUPTED)
            return DRAGON_CHANNEL_INTERRUPTED;
        if (r < 0)
            return dragon_error_trace(r);
    }
    return 0;
}

/* ---- pollers ---- */

bool dragon_channel_arm(struct dragon_channel *channel, uint64_t doorbell_offset, unsigned bit)
{
    struct dragon_channel_shared *shared = channel->shared;
    uint64_t entry = doorbell_offset / 64 * 256 + bit;
    bool armed = false;

    dragon_check(doorbell_offset % 64 == 0 && bit < 256);
    for (int i = 0; i < DRAGON_CHANNEL_N_POLLERS && !armed; i++)
        armed = dragon_peek(&shared->pollers[i]) == entry;
    for (int i = 0; i < DRAGON_CHANNEL_N_POLLERS && !armed; i++) {
        uint64_t none = 0;

        armed = dragon_replace(&shared->pollers[i], &none, entry);
    }
    dragon_exchange(&shared->has_pollers, 1);
    dragon_fence(); /* pairs with after_send: our look comes after the arming */
    return armed;
}

void dragon_channel_disarm(struct dragon_channel *channel, uint64_t doorbell_offset, unsigned bit)
{
    uint64_t entry = doorbell_offset / 64 * 256 + bit;

    for (int i = 0; i < DRAGON_CHANNEL_N_POLLERS; i++) {
        uint64_t expected = entry;

        dragon_replace(&channel->shared->pollers[i], &expected, 0);
    }
}

/* ---- inspection ---- */

/* From the oldest ring every link leads on to the one that is open; each begins
 * where the one before it ends. */
static bool rings_are_sane(struct dragon_pool *pool, uint64_t offset)
{
    struct dragon_ring_view view;
    uint64_t begin = 0, end;

    while (dragon_ring_view(pool, offset, &view) == 0) {
        end = dragon_peek(&view.ring->end);
        if (end <= view.base || view.base < begin)
            return false;
        if (end == DRAGON_RING_OPEN)
            return true;
        begin = end;
        offset = dragon_peek(&view.ring->next_offset);
    }
    return false;
}

bool dragon_channel_check(struct dragon_channel *channel)
{
    struct dragon_channel_shared *shared = channel->shared;
    bool sane = false;

    if (lock(&shared->send_lock) < 0)
        return false;
    if (lock(&shared->receive_lock) < 0)
        goto unlock_send;
    sane = rings_are_sane(channel->object.pool, dragon_peek(&shared->tail_ring)) &&
           dragon_peek(&shared->head) >= dragon_peek(&shared->tail) &&
           dragon_peek(&shared->head) - dragon_peek(&shared->tail) <= shared->max_messages &&
           dragon_peek(&shared->head) >= dragon_peek(&shared->n_done);
    dragon_mutex_unlock(&shared->receive_lock);
unlock_send:
    dragon_mutex_unlock(&shared->send_lock);
    return sane;
}
