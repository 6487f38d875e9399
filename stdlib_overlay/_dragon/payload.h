#pragma once

/*
 * What a message carries: in itself, or in a block of the pool with the number of bytes in the
 * message. Files of the codec only.
 */

#include "codec.h"

enum dragon_py_kind {
    DRAGON_PY_KIND_NONE = 1,
    DRAGON_PY_KIND_TRUE,
    DRAGON_PY_KIND_FALSE,
    DRAGON_PY_KIND_INT,
    DRAGON_PY_KIND_FLOAT,
    DRAGON_PY_KIND_BYTES,
    DRAGON_PY_KIND_STR,
    DRAGON_PY_KIND_TUPLE,
    DRAGON_PY_KIND_DICT,
    DRAGON_PY_KIND_PICKLE,
    DRAGON_PY_KIND_PICKLE_WITH_BUFFERS,
    DRAGON_PY_KIND_RAW,                /* what send_bytes was given */
    DRAGON_PY_KIND_LISTS_USES = 0x100, /* a flag: the block lists objects that it keeps in use */
    DRAGON_PY_KIND_LETTER = 0x200,     /* a flag: a header goes before (letter.h) */
};

/* Buffers below this are cheaper inside the pickle, and copies above it are made without the
 * GIL. */
#define DRAGON_PY_LARGE_BYTES 65536

/* The exception for an outcome or error of the runtime: PoolFull, OSError. */
void dragon_py_raise_failure(const struct dragon_py_transfer *t, int r);

/* Raise that the message is none of ours. -1. */
int dragon_py_bad_message(const struct dragon_py_transfer *t);

/* ---- making a message ---- */

/* A block for the message, which is its maker's. Its memory, borrowed, or NULL with PoolFull. */
void *dragon_py_add_block(const struct dragon_py_transfer *t, size_t size_bytes,
                          struct dragon_message *message);

/* n bytes of payload: inline, or in a block with n inline. room_bytes: that the block is to have,
 * 0 for n: then there must be one. 0, or -1 with an exception. */
int dragon_py_store(const struct dragon_py_transfer *t, const char *bytes, size_t n,
                    size_t room_bytes, struct dragon_message *message);

/* ---- taking it apart ---- */

/* Where the payload of a received message is. */
struct dragon_py_payload {
    const char *bytes; /* borrowed from the message, or from its block */
    size_t n;
    struct dragon_handle handle; /* of the block, if there is one */
    bool has_block;
};

struct dragon_handle dragon_py_block_handle(struct dragon_pool *pool,
                                            const struct dragon_message *message);

/* What others wrote is checked. 0, or -1 with an exception. */
int dragon_py_find_payload(const struct dragon_py_transfer *t, const struct dragon_message *message,
                           struct dragon_py_payload *payload_out);
