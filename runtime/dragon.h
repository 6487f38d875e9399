#pragma once

/*
 * The C interface of dragon: pools of shared memory, channels, and what
 * processes synchronise with. C11 on Linux; `pkg-config --cflags --libs dragon`
 * says how to compile and link. Each header below documents its functions:
 * what they return, who may call them, which process owns what afterwards.
 * The headers that these include are parts of them and no interface of their
 * own; a field marked private, or of a struct in shared memory, is not to be
 * touched.
 *
 * Two processes and a channel:
 *
 *     struct dragon_message message = {.size_bytes = 6, .bytes = "hello"};
 *     struct dragon_channel_options options = {.max_messages = 16, .max_bytes = UINT64_MAX};
 *     struct dragon_channel channel;
 *     struct dragon_pool *pool;
 *
 *     if (dragon_pool_create_managed(1 << 20, 1, 1, &pool) != 0 ||
 *         dragon_channel_create(pool, &options, &channel) != 0)
 *         return 1;
 *     if (fork() == 0)
 *         _exit(dragon_channel_send(&channel, &message, DRAGON_FOREVER));
 *     if (dragon_channel_receive(&channel, DRAGON_HOLDER_NONE, &message,
 *                                DRAGON_FOREVER) == 0)
 *         puts((const char *)message.bytes);
 *
 * Functions return 0, a negative errno value, or a positive outcome of their
 * own enum (base/error.h). Blocking ones take a deadline: an absolute time on
 * CLOCK_MONOTONIC in ns (base/deadline.h).
 */

#define DRAGON_VERSION_MAJOR 0
#define DRAGON_VERSION_MINOR 1
#define DRAGON_VERSION_PATCH 0
#define DRAGON_VERSION "0.1.0"

/* For #if: DRAGON_VERSION_NUMBER >= DRAGON_VERSION_OF(0, 2, 0) */
#define DRAGON_VERSION_OF(major, minor, patch) (1000000 * (major) + 1000 * (minor) + (patch))
#define DRAGON_VERSION_NUMBER                                                                      \
    DRAGON_VERSION_OF(DRAGON_VERSION_MAJOR, DRAGON_VERSION_MINOR, DRAGON_VERSION_PATCH)

#include "base/deadline.h"
#include "base/error.h"
#include "channel/channel.h"
#include "channel/channel_semaphore.h"
#include "channel/channel_set.h"
#include "channel/in_flight.h"
#include "channel/message.h"
#include "channel/pipe.h"
#include "memory/handle.h"
#include "memory/object.h"
#include "memory/pool.h"
#include "node/node.h"
#include "sync/barrier.h"
#include "sync/condition.h"
#include "sync/event.h"
#include "sync/lock.h"
#include "sync/semaphore.h"
