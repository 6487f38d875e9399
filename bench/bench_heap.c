/* What allocating and releasing a block costs in the pool, beside malloc in the same run.
 *
 *     bench_heap [ROUNDS]
 *
 * One process, one thread; medians of ROUNDS rounds in turns, ns for a pair of alloc and free. The
 * last columns are the bare cost of the protocol that docs/heap.md decides: a private list and
 * two compare and swaps on one word. Then: blocks made here and freed by another process, and how
 * long it takes to take back what a dead process held. */
#include "base/deadline.h"
#include "memory/pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_PAIRS 100000
#define N_BARE 1000
#define N_REMOTE 100000
#define N_DEAD 1000000
#define MAX_ROUNDS 101
#define ME DRAGON_HOLDER_FIRST_SLOT
#define DEAD (DRAGON_HOLDER_FIRST_SLOT + 1)

static struct dragon_pool *pool;

static void require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "bench_heap: %s\n", what);
        exit(1);
    }
}

static double pool_pairs_ns(uint64_t size_bytes)
{
    int64_t begin_ns = dragon_now_ns();

    for (int i = 0; i < N_PAIRS; i++) {
        struct dragon_handle handle;

        require(dragon_pool_alloc(pool, size_bytes, ME, &handle) == 0, "alloc");
        require(dragon_pool_free(pool, &handle) == 0, "free");
    }
    return (double)(dragon_now_ns() - begin_ns) / N_PAIRS;
}

static double malloc_pairs_ns(uint64_t size_bytes)
{
    int64_t begin_ns = dragon_now_ns();

    for (int i = 0; i < N_PAIRS; i++) {
        void *volatile block = malloc(size_bytes); /* volatile: gcc takes pairs away */

        free(block);
    }
    return (double)(dragon_now_ns() - begin_ns) / N_PAIRS;
}

/* A word: holder in the high half, generation in the low. */
static double bare_pairs_ns(uint64_t size_bytes)
{
    static _Atomic uint64_t words[N_BARE];
    static uint16_t list[N_BARE];
    int64_t begin_ns;
    int n = 0;

    (void)size_bytes;
    for (; n < N_BARE; n++)
        list[n] = (uint16_t)n;
    begin_ns = dragon_now_ns();
    for (int i = 0; i < N_PAIRS; i++) {
        uint16_t block = list[--n];
        uint64_t word = atomic_load_explicit(&words[block], memory_order_acquire);
        uint64_t mine = (UINT64_C(16) << 32) | (uint32_t)(word + 1);

        require(atomic_compare_exchange_strong(&words[block], &word, mine), "alloc");
        require(atomic_compare_exchange_strong(&words[block], &mine, mine & UINT32_MAX), "free");
        list[n++] = block;
    }
    return (double)(dragon_now_ns() - begin_ns) / N_PAIRS;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

static void print_pairs(uint64_t size_bytes, int n_rounds)
{
    static double (*const measures[])(uint64_t) = {pool_pairs_ns, malloc_pairs_ns, bare_pairs_ns};
    static double values[3][MAX_ROUNDS];

    for (int round = 0; round < n_rounds; round++)
        for (int i = 0; i < 3; i++)
            values[i][round] = measures[i](size_bytes);
    printf("%9lu B %12.1f %12.1f %12.1f\n", (unsigned long)size_bytes, median(values[0], n_rounds),
           median(values[1], n_rounds), median(values[2], n_rounds));
}

static void free_all(const struct dragon_handle *handles, int n)
{
    for (int i = 0; i < n; i++)
        if (dragon_pool_free(pool, &handles[i]) != 0)
            _exit(1);
}

static void print_remote(void)
{
    static struct dragon_handle handles[N_REMOTE];
    int64_t begin_ns;
    int status;
    pid_t pid;

    for (int i = 0; i < N_REMOTE; i++)
        require(dragon_pool_alloc(pool, 256, ME, &handles[i]) == 0, "alloc");
    fflush(stdout);
    pid = fork();
    require(pid >= 0, "fork");
    if (pid == 0) {
        free_all(handles, 1); /* its page tables, its caches */
        begin_ns = dragon_now_ns();
        free_all(handles + 1, N_REMOTE - 1);
        printf("freed by another process, 256 B: %.1f ns a block\n",
               (double)(dragon_now_ns() - begin_ns) / (N_REMOTE - 1));
        fflush(stdout);
        _exit(0);
    }
    require(waitpid(pid, &status, 0) == pid && status == 0, "the other process");
}

static void print_recovery(void)
{
    int64_t begin_ns;

    for (int i = 0; i < N_DEAD; i++) {
        struct dragon_handle handle;

        require(dragon_pool_alloc(pool, 512, DEAD, &handle) == 0, "alloc");
    }
    begin_ns = dragon_now_ns();
    require(dragon_pool_sweep(pool, DEAD) == N_DEAD, "sweep");
    printf("taking back %d blocks of 512 B of a dead process: %.1f ms\n", N_DEAD,
           (double)(dragon_now_ns() - begin_ns) / 1e6);
}

int main(int argc, char **argv)
{
    static const uint64_t sizes[] = {32, 64, 256, 1024, 4096, 65536, 1 << 20};
    int n_rounds = argc > 1 ? atoi(argv[1]) : 11;

    require(n_rounds > 0 && n_rounds <= MAX_ROUNDS, "1 to 101 rounds");
    require(dragon_pool_create_managed(UINT64_C(1) << 30, 1, 1, &pool) == 0, "pool");
    printf("alloc+free, ns      pool       malloc   bare words\n");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        print_pairs(sizes[i], n_rounds);
    print_remote();
    print_recovery();
    dragon_pool_close(pool);
    return 0;
}
