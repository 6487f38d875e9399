/*
 * A poller keeps an eventfd readable while its channel has messages, and for good
 * once it was destroyed.
 *
 * While the channel is empty the poller is armed: the next sender rings this
 * process's doorbell, and the channels thread looks. While it is not empty the
 * descriptor is raised and nothing is armed. Whoever empties the channel from
 * this process updates the poller; when another process empties it, the
 * descriptor stays raised until the next update here, which is a wake-up too
 * many, as with a pipe that several processes read.
 *
 * The mutex orders raising and lowering within the process.
 */
#include "node/node.h"

#include "base/alloc.h"
#include "base/error.h"
#include "channel/channel.h"
#include "node/threads.h"
#include "os/os.h"

#include <errno.h>

struct dragon_poller {
    struct dragon_node *node;
    struct dragon_channel *channel;
    struct dragon_poller *next; /* same doorbell bit */
    int fd;
    unsigned bit;
    unsigned n_forks; /* of the node, when it was opened */
    bool is_raised;
};

/* The end of the channel is something to be told of, too. */
static bool has_news(const struct dragon_channel *channel)
{
    return dragon_channel_count(channel) != 0 || dragon_channel_is_destroyed(channel);
}

static void update_locked(struct dragon_poller *poller)
{
    struct dragon_table *table = &poller->node->table;
    uint32_t slot = dragon_observe(&poller->node->slot);
    bool is_ready = has_news(poller->channel);

    if (!is_ready) {
        if (poller->is_raised)
            dragon_os_eventfd_lower(poller->fd);
        poller->is_raised = false;
        dragon_channel_arm(poller->channel, dragon_table_doorbell_offset(table, slot), poller->bit);
        is_ready = has_news(poller->channel);
    }
    if (is_ready && !poller->is_raised) {
        dragon_os_eventfd_raise(poller->fd);
        poller->is_raised = true;
    }
}

bool dragon_poller_is_inherited(const struct dragon_poller *poller)
{
    return poller->n_forks != poller->node->n_forks;
}

void dragon_poller_update(struct dragon_poller *poller)
{
    if (dragon_poller_is_inherited(poller))
        return;
    pthread_mutex_lock(&poller->node->pollers_mutex);
    update_locked(poller);
    pthread_mutex_unlock(&poller->node->pollers_mutex);
}

void dragon_node_update_pollers(struct dragon_node *node,
                                const uint64_t ready[DRAGON_DOORBELL_WORDS])
{
    pthread_mutex_lock(&node->pollers_mutex);
    for (unsigned bit = 0; bit < DRAGON_DOORBELL_BITS; bit++) {
        if (!(ready[bit / 64] >> bit % 64 & 1))
            continue;
        for (struct dragon_poller *p = node->pollers[bit]; p; p = p->next)
            update_locked(p);
    }
    pthread_mutex_unlock(&node->pollers_mutex);
}

static void ring_own_doorbell(struct dragon_node *node, unsigned bit)
{
    struct dragon_table_slot *slot =
        dragon_table_claimed(&node->table, dragon_observe(&node->slot));

    dragon_doorbell_ring(&slot->doorbell, bit);
}

int dragon_poller_open(struct dragon_node *node, struct dragon_channel *channel,
                       struct dragon_poller **poller_out)
{
    struct dragon_poller *poller = dragon_alloc_zeroed(sizeof *poller);
    int r;

    if (!poller)
        return dragon_error_origin(-ENOMEM);
    poller->node = node;
    poller->channel = channel;
    poller->n_forks = node->n_forks;
    r = dragon_os_eventfd(&poller->fd);
    if (r < 0)
        goto free_poller;
    r = dragon_node_start_channels_thread(node);
    if (r < 0)
        goto close_fd;
    pthread_mutex_lock(&node->pollers_mutex);
    poller->bit = node->next_bit++ % DRAGON_DOORBELL_BITS;
    poller->next = node->pollers[poller->bit];
    node->pollers[poller->bit] = poller;
    update_locked(poller);
    pthread_mutex_unlock(&node->pollers_mutex);
    /* From the first poller on the channels thread looks again by itself. */
    if (dragon_fetch_add(&node->n_pollers, 1) == 0)
        ring_own_doorbell(node, poller->bit);
    *poller_out = poller;
    return 0;

close_fd:
    dragon_os_close(poller->fd);
free_poller:
    dragon_alloc_free(poller);
    return dragon_error_trace(r);
}

static void withdraw(struct dragon_poller *poller)
{
    struct dragon_node *node = poller->node;
    struct dragon_poller **link;

    pthread_mutex_lock(&node->pollers_mutex);
    for (link = &node->pollers[poller->bit]; *link != poller; link = &(*link)->next)
        ;
    *link = poller->next;
    pthread_mutex_unlock(&node->pollers_mutex);
    dragon_fetch_sub(&node->n_pollers, 1);
    dragon_channel_disarm(poller->channel,
                          dragon_table_doorbell_offset(&node->table, dragon_peek(&node->slot)),
                          poller->bit);
}

void dragon_poller_close(struct dragon_poller *poller)
{
    if (!dragon_poller_is_inherited(poller))
        withdraw(poller);
    dragon_os_close(poller->fd);
    dragon_alloc_free(poller);
}

int dragon_poller_fd(const struct dragon_poller *poller)
{
    return poller->fd;
}
