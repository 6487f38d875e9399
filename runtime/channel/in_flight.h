#pragma once

/*
 * Blocks in flight: what becomes of the blocks of a process that has ended.
 *
 * A block that is sent keeps its sender as its holder while it is in a channel;
 * the receiver makes itself the holder, then commits. So among the blocks whose
 * holder has ended are its own, to be freed, and those that a message in some
 * channel names, which are to arrive. The sweep reads all channels of the pool to
 * tell them apart. (docs/channel.md says why that is right; a search of all
 * interleavings: tests/model/in_flight.py.)
 *
 * It only reads the channels and takes no lock of theirs: it waits for nobody that may
 * be stopped, and who is killed in the middle of a sweep leaves nothing behind that the
 * next one does not find.
 *
 * The same sweep gives back what the process used of shared objects (memory/object.h), and
 * what the blocks used that are freed; objects that nobody uses then are freed with all that
 * is in them. docs/objects.md.
 */

#include <stdint.h>

struct dragon_end;
struct dragon_pool;

/* Free all blocks and uses of a holder that has ended: its process will neither send nor
 * receive again, and the holder is not given to another while a sweep of it is
 * under way. Those in flight, and rings of channels, get the holder
 * DRAGON_HOLDER_CHANNEL. n_freed_out: of those blocks; may be NULL. -ENOMEM: no block was freed,
 * call again. Any thread, any process. */
int dragon_in_flight_sweep(struct dragon_pool *pool, uint32_t holder, uint64_t *n_freed_out);

/* The same for a process of a node, of which those who wait for it are told how it has
 * ended (dragon_user_ended). */
int dragon_in_flight_bury(struct dragon_pool *pool, uint32_t holder, const struct dragon_end *end);

/* The same for this process, which leaves the pool: no look at all objects if it has closed
 * all of its own. */
int dragon_in_flight_leave(struct dragon_pool *pool, uint32_t holder);
