#pragma once

/*
 * _dragon.PlaceWords: what the worker of a pool's place is doing, and its journal.
 *
 * Shared memory, read by the pool's process whenever it likes, also after the worker has
 * been killed (docs/pool.md). A call is named by one word: its task's number in the upper
 * half, its item's index plus 1 in the lower one; 0 is no call. Numbers grow, and so do
 * the words of the calls that a place is given.
 *
 * Who writes: doing, since_ns and the journal: the worker. withdrawn_*: the pool. Each is
 * one store of 8 bytes.
 *
 * doing is the commit: since_ns, and what the journal has of calls before, are written
 * before it. As long as it names a call, the journal's entries for the calls before do not
 * change: the worker appends behind them, and writes over them after its next commit only.
 *
 * Calls from withdrawn_first up to below withdrawn_end are the pool's again. The worker
 * commits a call and then looks whether it was withdrawn; the pool withdraws calls and then
 * looks which one is committed (Dekker): if one before them, none of them will be begun.
 * Otherwise the worker says, by a message, where it has stopped. withdrawn_end is written
 * before withdrawn_first, and a later withdrawal is of later calls, when the worker has
 * passed all earlier ones.
 *
 * If the worker dies: doing names the call that it was in, or one whose result it has sent
 * already, or one before which it stopped.
 */

#include "module.h"

#include "base/atomic.h"

struct dragon_py_place_shared {
    _Atomic uint64_t doing;
    _Atomic uint64_t since_ns; /* CLOCK_MONOTONIC: when the call of doing began */
    _Atomic uint64_t withdrawn_first;
    _Atomic uint64_t withdrawn_end;
    uint64_t reserved[4]; /* a cache line: no worker slows another down */
};

_Static_assert(sizeof(struct dragon_py_place_shared) == 64, "shared layout");

#define DRAGON_PY_JOURNAL_BYTES 16384

struct dragon_py_place_words {
    PyObject_HEAD
    Py_buffer memory; /* of all places */
    struct dragon_py_place_shared *shared;
    unsigned char *journal;
    size_t n_bytes; /* of the journal: what this process has written */
};

/* The word of a call. */
static inline uint64_t dragon_py_call_word(uint64_t number, uint64_t item)
{
    return (number & UINT32_MAX) << 32 | ((item + 1) & UINT32_MAX);
}

/* The worker begins a call; what it has kept before is valid from now on. False: the call
 * was withdrawn, and must not be made. */
static inline bool dragon_py_place_begin(struct dragon_py_place_words *words, uint64_t call,
                                         int64_t now_ns)
{
    uint64_t first;

    dragon_poke(&words->shared->since_ns, (uint64_t)now_ns);
    (void)dragon_exchange(&words->shared->doing, call);
    dragon_fence_after_change();
    first = dragon_observe(&words->shared->withdrawn_first);
    if (first == 0 || (int64_t)(call - first) < 0)
        return true;
    return (int64_t)(call - dragon_peek(&words->shared->withdrawn_end)) >= 0;
}

/* Write a result into the journal, behind others. True: it is there. False: it is neither a
 * number of 64 bits, a text, bytes, a bool nor None, or there is no room. */
bool dragon_py_place_keep(struct dragon_py_place_words *words, PyObject *result);

/* A list of the n results in what a worker has sent of its journal, but for the first
 * n_skipped. NULL with ValueError: it makes no sense. */
PyObject *dragon_py_results_of(const char *bytes, Py_ssize_t n_bytes, Py_ssize_t n_skipped,
                               Py_ssize_t n);
