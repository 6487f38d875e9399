#pragma once

/*
 * Message: what a channel carries. Up to DRAGON_MESSAGE_INLINE_BYTES travel in
 * the channel's own slot; more travel in a pool block, whose handle is in the
 * slot and which is nobody's to use on the way and the receiver's after.
 */

#include "memory/handle.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRAGON_MESSAGE_INLINE_BYTES 104

struct dragon_message {
    uint32_t kind;       /* the users' own word, carried along */
    uint32_t size_bytes; /* of the inline bytes */
    uint64_t block_offset;
    uint32_t block_generation; /* 0: no block */
    uint32_t block_lines;      /* its size in units of 64 bytes, for limits */
    unsigned char bytes[DRAGON_MESSAGE_INLINE_BYTES];
};

/* Two cache lines: it is also the layout of a slot. Short messages fill one. */
#define DRAGON_MESSAGE_LINE_BYTES 64
_Static_assert(sizeof(struct dragon_message) == 2 * DRAGON_MESSAGE_LINE_BYTES, "shared layout");

/* True if it names a pool block. */
static inline bool dragon_message_has_block(const struct dragon_message *message)
{
    return message->block_generation != 0;
}

/* True if its first line has all of it. */
static inline bool dragon_message_is_short(const struct dragon_message *message)
{
    return message->size_bytes <=
           DRAGON_MESSAGE_LINE_BYTES - offsetof(struct dragon_message, bytes);
}
