/*
 * Three things that mimalloc 2.0.9 does with large blocks would make a program slower or larger
 * than the same program under glibc's malloc:
 *
 *  - A block above 16 MiB goes back to the system when it is freed, so a loop that makes and drops
 *    such buffers pays for page faults each time: 12 ms for 16 MiB where glibc takes 1.5. An arena
 *    reserved beforehand keeps them. It only grows as it is used, but what was used once stays,
 * hence no more than ARENA_SIZE_BYTES.
 *  - Memory that is empty again is kept for half a second and then until somebody happens to look:
 *    after 500 MiB of 1 MiB blocks the process stayed at 515 MiB, glibc's at 29. Without the delay
 * it goes back at once, at no cost that could be measured.
 *  - calloc writes its zeros even into memory that comes fresh from the system, which makes
 *    numpy.zeros((100000, 100000)) take 80 GB. See dragon_allocator_calloc.
 */

#include "allocator.h"

#include <stddef.h>

#ifdef DRAGON_HAVE_MIMALLOC
#include <mimalloc.h>
#endif

#ifdef DRAGON_MIMALLOC_OVERRIDE
#include <stdint.h>
#include <sys/resource.h>

#define ARENA_SIZE_BYTES (128ULL << 20)

/* mimalloc's segment size. A larger block has mappings of its own, made for it and removed with it,
 * unless it lies in an arena. (A block of just this size may come from its cache of segments.) */
#define SEGMENT_SIZE_BYTES (32ULL << 20)

static uintptr_t arena_start;
static size_t arena_size_bytes;

/* With a limit on address space the arena would take room which python3 leaves to the program. */
static int address_space_is_limited(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
}

void dragon_allocator_prepare(void)
{
    mi_arena_id_t arena;
    mi_option_set_default(mi_option_segment_decommit_delay, 0);
    if (!address_space_is_limited() &&
        mi_reserve_os_memory_ex(ARENA_SIZE_BYTES, true, false, false, &arena) == 0) {
        arena_start = (uintptr_t)mi_arena_area(arena, &arena_size_bytes);
    }
}

/* The calloc of the program, libraries included (the link says so and must export it): leaves pages
 * untouched that are zero already. */
__attribute__((visibility("default"))) void *dragon_allocator_calloc(size_t n, size_t size_bytes);

void *dragon_allocator_calloc(size_t n, size_t size_bytes)
{
    size_t total_bytes;
    if (__builtin_mul_overflow(n, size_bytes, &total_bytes) ||
        total_bytes <= 2 * SEGMENT_SIZE_BYTES) {
        return mi_calloc(n, size_bytes);
    }
    void *block = mi_malloc(total_bytes);
    if (block && (uintptr_t)block - arena_start < arena_size_bytes) {
        __builtin_memset(block, 0, total_bytes);
    }
    return block;
}
#else
void dragon_allocator_prepare(void) {}
#endif

const char *dragon_allocator_version(void)
{
#ifdef DRAGON_HAVE_MIMALLOC
    return "mimalloc " DRAGON_MIMALLOC_VERSION;
#else
    return NULL;
#endif
}

const char *dragon_allocator_description(void)
{
#if defined(DRAGON_MIMALLOC_OVERRIDE)
    return "mimalloc " DRAGON_MIMALLOC_VERSION " (malloc of the whole program)";
#elif defined(DRAGON_HAVE_MIMALLOC)
    return "the C library's; mimalloc " DRAGON_MIMALLOC_VERSION " for the runtime's own memory";
#else
    return "the C library's";
#endif
}
