#pragma once

/*
 * Every memory order of the runtime, named by its role.
 *
 * Shared words are declared _Atomic and are touched only through these helpers.
 * A release names, in a comment at its use, the acquire it pairs with.
 *
 *   peek      relaxed load: a hint, or a word that only this thread writes
 *   poke      relaxed store: nobody draws a conclusion from it
 *   observe   acquire load: what was published before the value is visible now
 *   publish   release store: what was written before is visible to observers
 *   fence     full barrier: orders my store before my next load (Dekker)
 *   read_once a plain word that others may write over meanwhile: what was checked
 *             is what is used
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define dragon_peek(p) atomic_load_explicit((p), memory_order_relaxed)
#define dragon_poke(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define dragon_observe(p) atomic_load_explicit((p), memory_order_acquire)
#define dragon_publish(p, v) atomic_store_explicit((p), (v), memory_order_release)

#define dragon_read_once(p) __atomic_load_n((p), __ATOMIC_RELAXED)

/* Read-modify-write, all sequentially consistent: they are rare enough. */
#define dragon_fetch_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define dragon_fetch_sub(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define dragon_fetch_or(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define dragon_fetch_and(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define dragon_exchange(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)

/* True if *p was *expected and is v now; otherwise *expected is what *p was. */
#define dragon_replace(p, expected, v)                                                             \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst,            \
                                            memory_order_acquire)

/* What is stored before it is visible to all before anything after it is loaded. */
static inline void dragon_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* The same after a read-modify-write above, which on some machines is one. */
static inline void dragon_fence_after_change(void)
{
#if defined(__x86_64__) || defined(__i386__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tell the core that this is a spin loop. */
static inline void dragon_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
