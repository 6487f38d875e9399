/* Threads over one pool until the time is up: stress_heap SEED SECONDS. Each
 * fills its blocks with a pattern of its own and hands some to others, who free
 * them. Beside them threads start and end, forked copies of the process allocate
 * and are killed, somebody reads, counts, sweeps and trims, and somebody writes nonsense
 * into the list of kept runs. Pools are large,
 * small and always full, counted, and with short chunks, in turn. Also a program for
 * the thread sanitizer. */
#include "base/atomic.h"
#include "base/deadline.h"
#include "support/heap_walk.h"
#include "support/stress.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define N_THREADS 4
#define N_STEPS 4000
#define N_SHORT_STEPS 200 /* of a thread that ends soon */
#define N_OWN 40
#define N_BESIDE 4 /* threads that do something else */
#define N_SHELVES 64
#define SHORT_LIVED (DRAGON_HOLDER_FIRST_SLOT + N_THREADS)
#define KILLED (DRAGON_HOLDER_FIRST_SLOT + N_THREADS + 1)
#define LONGEST_WAIT_NS 2000000
#define LARGEST UINT64_C(300000)
#define LARGEST_OF_ALL (UINT64_C(2) << 20) /* rarely: a long run (memory/heap_runs.c) */

static const struct dragon_pool_options settings[] = {
    {.size_bytes = UINT64_C(32) << 20, .node = 7, .number = 1},
    {.size_bytes = UINT64_C(2) << 20, .node = 7, .number = 2},
    {.size_bytes = UINT64_C(2) << 20, .node = 7, .number = 3, .max_blocks = 60},
    {.size_bytes = UINT64_C(8) << 20, .node = 7, .number = 4, .is_counted = true},
    {.size_bytes = UINT64_C(256) << 10, .node = 7, .number = 5},
};

static struct dragon_pool *pool;
static const struct dragon_pool_options *setting;
static _Atomic uint32_t n_at_work; /* threads of those that work */
static pthread_barrier_t is_closed;

/* Blocks on their way from one thread to another, by offset; 0: none. */
static _Atomic uint64_t shelves[N_SHELVES];

struct worker {
    struct seed seed;
    uint32_t holder;
    int n_steps;
    struct dragon_handle own[N_OWN];
};

static unsigned char fill_of(const struct dragon_handle *handle)
{
    return (unsigned char)(handle->generation * 31);
}

static void check_and_free(const struct dragon_handle *handle)
{
    unsigned char *bytes;
    uint64_t size_bytes;
    void *address;

    require(dragon_pool_resolve(pool, handle, &address, &size_bytes) == 0);
    bytes = address;
    require(bytes[0] == fill_of(handle) && bytes[size_bytes - 1] == fill_of(handle));
    require(dragon_pool_free(pool, handle) == 0);
    require(dragon_pool_free(pool, handle) < 0);
}

static void alloc(struct worker *worker, struct dragon_handle *handle)
{
    uint64_t largest[] = {100, 2000, 16384, LARGEST};
    uint64_t most =
        seed_below(&worker->seed, 100) ? largest[seed_below(&worker->seed, 4)] : LARGEST_OF_ALL;
    uint64_t size_bytes = 1 + seed_below(&worker->seed, most);
    int64_t wait_ns = (int64_t)seed_below(&worker->seed, LONGEST_WAIT_NS);
    int r;

    if (seed_below(&worker->seed, 2) == 0)
        r = dragon_pool_alloc(pool, size_bytes, worker->holder, handle);
    else
        r = dragon_pool_alloc_wait(pool, size_bytes, worker->holder,
                                   dragon_deadline_after_ns(wait_ns), handle);
    require(r == 0 || r == DRAGON_POOL_FULL || r == DRAGON_POOL_TIMEOUT);
    if (r == 0)
        memset(dragon_pool_at(pool, handle->offset), fill_of(handle), size_bytes);
    else
        handle->generation = 0;
}

/* Lay a block on a shelf, and free what was there. */
static void give_away(struct worker *worker, struct dragon_handle *handle)
{
    struct dragon_handle other;
    uint64_t size_bytes, offset;
    uint32_t before;

    require(dragon_pool_hold(pool, handle, DRAGON_HOLDER_SHARED, &before) == 0);
    require(before == worker->holder);
    offset = dragon_exchange(&shelves[seed_below(&worker->seed, N_SHELVES)], handle->offset);
    handle->generation = 0;
    if (offset == 0)
        return;
    require(dragon_pool_find(pool, offset, &other, &size_bytes) == 0);
    check_and_free(&other);
}

static void run_steps(struct worker *worker)
{
    for (int i = 0; i < worker->n_steps; i++) {
        struct dragon_handle *handle = &worker->own[seed_below(&worker->seed, N_OWN)];

        if (handle->generation == 0) {
            alloc(worker, handle);
        } else if (worker->holder != KILLED && seed_below(&worker->seed, 3) == 0) {
            give_away(worker, handle);
        } else {
            check_and_free(handle);
            handle->generation = 0;
        }
    }
}

/* Some end with their leases, others when the pool is closed already. */
static void *work(void *argument)
{
    struct worker *worker = argument;

    run_steps(worker);
    dragon_fetch_sub(&n_at_work, 1);
    if (worker->holder % 2)
        pthread_barrier_wait(&is_closed);
    return NULL;
}

static void *work_shortly(void *argument)
{
    run_steps(argument);
    return NULL;
}

static uint64_t count_own(const struct worker *worker)
{
    uint64_t n = 0;

    for (int i = 0; i < N_OWN; i++)
        n += worker->own[i].generation != 0;
    return n;
}

/* ---- beside ---- */

static void *start_threads(void *argument)
{
    struct seed *seed = argument;

    while (dragon_observe(&n_at_work) > 0) {
        struct worker worker = {.holder = SHORT_LIVED, .n_steps = N_SHORT_STEPS};
        pthread_t thread;

        worker.seed = seed_from(seed_next(seed));
        require(pthread_create(&thread, NULL, work_shortly, &worker) == 0);
        pthread_join(thread, NULL);
        require(dragon_pool_sweep(pool, SHORT_LIVED) == count_own(&worker));
    }
    return NULL;
}

/* Not under the thread sanitizer: it does not see how another process orders what
 * two threads of this one do, and calls that a race. */
static bool may_fork(void)
{
#ifdef __SANITIZE_THREAD__
    return false;
#else
    return true;
#endif
}

static void *fork_and_kill(void *argument)
{
    struct seed *seed = argument;

    while (may_fork() && dragon_observe(&n_at_work) > 0) {
        struct worker worker = {.holder = KILLED, .n_steps = INT32_MAX};
        struct timespec wait = {.tv_nsec = (long)seed_below(seed, 3000000)};
        int status;
        pid_t pid;

        worker.seed = seed_from(seed_next(seed));
        pid = fork();
        require(pid >= 0);
        if (pid == 0) {
            run_steps(&worker);
            _exit(0);
        }
        nanosleep(&wait, NULL);
        kill(pid, SIGKILL);
        require(waitpid(pid, &status, 0) == pid);
        require(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        require(dragon_pool_sweep(pool, KILLED) <= N_OWN + 1); /* one may have no name yet */
    }
    return NULL;
}

static void look_at_all(void)
{
    struct dragon_pool_statistics statistics;
    struct dragon_handle handle;
    uint64_t at = 0, last = 0, size_bytes;
    uint32_t holder;

    while (dragon_pool_next(pool, &at, &handle, &size_bytes, &holder)) {
        require(handle.offset > last && size_bytes > 0 && size_bytes <= LARGEST_OF_ALL);
        require(holder == DRAGON_HOLDER_SHARED ||
                (holder >= DRAGON_HOLDER_FIRST_SLOT && holder <= KILLED));
        last = handle.offset;
    }
    dragon_pool_statistics(pool, &statistics);
    require(statistics.free_bytes <= statistics.size_bytes);
    if (setting->max_blocks)
        require(statistics.most_blocks <= setting->max_blocks);
}

static void *look_and_trim(void *argument)
{
    struct seed *seed = argument;

    while (dragon_observe(&n_at_work) > 0) {
        look_at_all();
        if (seed_below(seed, 2) == 0)
            dragon_pool_trim(pool, seed_below(seed, setting->size_bytes));
        else
            dragon_pool_trim_idle(pool, seed_below(seed, setting->size_bytes));
    }
    return NULL;
}

/* Entries are guesses: whatever they say, nobody gets what is another's. */
static void *guess_runs(void *argument)
{
    struct seed *seed = argument;
    struct heap_view view;

    heap_view_open(&view, pool);
    while (dragon_observe(&n_at_work) > 0) {
        uint64_t first = seed_below(seed, view.heap.n_chunks), n = 1 + seed_below(seed, 5);
        int i = (int)seed_below(seed, DRAGON_HEAP_N_KEPT_RUNS);

        dragon_poke(&view.heap.header->kept_runs[i].run, first << 32 | n);
        sched_yield();
    }
    heap_view_close(&view);
    return NULL;
}

/* ---- rounds ---- */

static void check_end(const struct worker *workers)
{
    struct dragon_pool_statistics statistics;

    require(dragon_pool_check(pool));
    for (int i = 0; i < N_THREADS; i++)
        require(dragon_pool_sweep(pool, workers[i].holder) == count_own(&workers[i]));
    dragon_pool_sweep(pool, DRAGON_HOLDER_SHARED);
    dragon_pool_statistics(pool, &statistics);
    require(statistics.n_blocks == 0 && statistics.free_bytes == setting->size_bytes);
    require(dragon_pool_check(pool));
}

static void run_round(struct seed *seed)
{
    void *(*const beside[])(void *) = {start_threads, fork_and_kill, look_and_trim, guess_runs};
    struct worker workers[N_THREADS] = {0};
    struct seed seeds[N_BESIDE];
    pthread_t threads[N_THREADS], others[N_BESIDE];

    require(dragon_pool_make_managed(setting, &pool) == 0);
    memset(shelves, 0, sizeof shelves);
    dragon_poke(&n_at_work, N_THREADS);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        workers[i].seed = seed_from(seed_next(seed));
        workers[i].holder = DRAGON_HOLDER_FIRST_SLOT + i;
        workers[i].n_steps = N_STEPS;
        require(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < N_BESIDE; i++) {
        seeds[i] = seed_from(seed_next(seed));
        require(pthread_create(&others[i], NULL, beside[i], &seeds[i]) == 0);
    }
    for (int i = 0; i < N_BESIDE; i++)
        pthread_join(others[i], NULL);
    check_end(workers);
    dragon_pool_close(pool);
    pthread_barrier_wait(&is_closed);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- one chunk that changes its class again and again ---- */

#define N_CHANGES 20000

static const uint64_t change_sizes[] = {20000, 30000, 65000, 55000};
static const uint64_t change_steps[] = {20480, 32768, 65536, 65536}; /* from block to block */

static void *change_class(void *argument)
{
    struct dragon_handle handles[3];

    (void)argument;
    for (int i = 0; i < N_CHANGES; i++) {
        int n = 0;

        while (dragon_pool_alloc(pool, change_sizes[i % 4], KILLED, &handles[n]) == 0)
            n++;
        require(n == (int)(65536 / change_steps[i % 4]));
        while (n > 0)
            require(dragon_pool_free(pool, &handles[--n]) == 0);
    }
    dragon_fetch_sub(&n_at_work, 1);
    return NULL;
}

static void look_at_block(uint64_t inside, uint64_t size_bytes)
{
    for (int i = 0; i < 4; i++)
        if (change_sizes[i] == size_bytes && inside % change_steps[i] == 0)
            return;
    require(!"a block with the size of another");
}

static void run_changing_round(void)
{
    const struct dragon_pool_options options = {.size_bytes = UINT64_C(1) << 20, .number = 6};
    struct dragon_handle handle;
    uint64_t data, size_bytes;
    uint32_t holder;
    pthread_t thread;

    require(dragon_pool_make_managed(&options, &pool) == 0);
    dragon_pool_limit(pool, 65536);
    require(dragon_pool_alloc(pool, 65536, KILLED, &handle) == 0);
    data = handle.offset;
    require(dragon_pool_free(pool, &handle) == 0);
    dragon_poke(&n_at_work, 1);
    require(pthread_create(&thread, NULL, change_class, NULL) == 0);
    while (dragon_observe(&n_at_work) > 0) {
        uint64_t at = 0;

        while (dragon_pool_next(pool, &at, &handle, &size_bytes, &holder))
            look_at_block(handle.offset - data, size_bytes);
        if (dragon_pool_find(pool, data + 20480, &handle, &size_bytes) == 0)
            require(size_bytes == 20000);
    }
    pthread_join(thread, NULL);
    require(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

static void run_both(struct seed *seed)
{
    static int n;

    setting = &settings[n++ % (sizeof settings / sizeof *settings)];
    run_round(seed);
    run_changing_round();
}

int main(int argc, char **argv)
{
    int n;

    pthread_barrier_init(&is_closed, NULL, N_THREADS / 2 + 1);
    n = stress_run(argc, argv, run_both);
    printf("stress_heap: %d rounds of %d steps\n", n, N_THREADS * N_STEPS);
    return 0;
}
