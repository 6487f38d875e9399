#pragma once

/*
 * Uses by blocks: a block may list, at its end, objects that it keeps in use until it
 * is freed by dragon_uses_free_block. So a message keeps what travels in it, whoever
 * has it, and is told from others by its block alone.
 *
 * The list is written before the block becomes a user of the first object, and the
 * block is taken out of all before it is freed, so that who is killed in between leaves
 * a block whose list tells what to take back; some of that may have been done. A list
 * can only take back uses of its own block: bytes that only look like one, in a block
 * that a program may write into, harm nobody.
 */

#include "memory/handle.h"

#include <stdint.h>

struct dragon_garbage;
struct dragon_pool;

/* Bytes of a block for size_bytes of its user's and a list of n objects. */
uint64_t dragon_uses_block_bytes(uint64_t size_bytes, uint64_t n);

/* Let a block of just that many bytes, which the caller holds as holder, use n objects
 * that the caller uses. On failure nothing is used. Outcomes of dragon_pool_alloc;
 * -EBADMSG. */
int dragon_uses_add(struct dragon_pool *pool, const struct dragon_handle *block,
                    const struct dragon_handle *objects, uint64_t n, uint32_t holder);

/* Let a block use nothing any more. What has no user then is added to the garbage. */
void dragon_uses_release(const struct dragon_handle *block, struct dragon_garbage *garbage);

/* The same, then free the block. As dragon_pool_free. */
int dragon_uses_free_block(const struct dragon_handle *block, struct dragon_garbage *garbage);
