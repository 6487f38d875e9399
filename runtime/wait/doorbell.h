#pragma once

/*
 * Doorbell: one thread waits for many things. Who has something for it sets
 * its bit and rings; the thread takes all bits at once.
 *
 * Who writes: ready: ringers set bits, the owner clears them, both atomically.
 * A ringer that dies between bit and wake is made up for by the owner, whose
 * sleeps end after DRAGON_EVENTCOUNT_PARK_NS; a dead owner leaves bits that
 * its successor in the same slot clears.
 */

#include "wait/eventcount.h"

#include <stdbool.h>
#include <stdint.h>

#define DRAGON_DOORBELL_WORDS 4
#define DRAGON_DOORBELL_BITS (64 * DRAGON_DOORBELL_WORDS)

struct dragon_doorbell {
    /* private */
    struct dragon_eventcount rung;
    _Atomic uint64_t ready[DRAGON_DOORBELL_WORDS];
    uint64_t magic;
};

_Static_assert(sizeof(struct dragon_doorbell) == 56, "shared layout");

void dragon_doorbell_init(struct dragon_doorbell *doorbell);

/* True if there is a doorbell: for places that other processes named. */
bool dragon_doorbell_is_one(const struct dragon_doorbell *doorbell);

/* Set bit (below DRAGON_DOORBELL_BITS) and wake the owner. Never blocks. */
void dragon_doorbell_ring(struct dragon_doorbell *doorbell, unsigned bit);

/* Take the bits that are set; if there are none, wait for one. look_again:
 * return with no bit set after DRAGON_EVENTCOUNT_PARK_NS, so that the owner
 * looks at everything. The one owner thread only. */
void dragon_doorbell_wait(struct dragon_doorbell *doorbell, bool look_again,
                          uint64_t ready_out[DRAGON_DOORBELL_WORDS]);
