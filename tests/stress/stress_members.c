/* Threads that join and leave a pool, each as a member of its own, while others sweep it
 * and fork copies that join, hold blocks and are killed: stress_members SEED SECONDS.
 * Nobody alive loses a block, and in the end all has come back. Also a program for the
 * thread sanitizer. */
#include "process/members.h"

#include "base/deadline.h"
#include "memory/pool.h"
#include "support/stress.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_THREADS 4
#define N_OWN 8
#define N_STEPS 300
#define BLOCK_BYTES 500

static struct dragon_pool *pool;

struct worker {
    struct seed seed;
    struct dragon_member member;
    struct dragon_handle own[N_OWN]; /* generation 0: none */
};

static void alloc(struct worker *worker, struct dragon_handle *handle_out)
{
    uint32_t holder = dragon_member_holder(&worker->member);

    require(holder != 0);
    require(dragon_pool_alloc(pool, BLOCK_BYTES, holder, handle_out) == 0);
}

static void change_one(struct worker *worker)
{
    struct dragon_handle *handle = &worker->own[seed_below(&worker->seed, N_OWN)];

    if (handle->generation == 0) {
        alloc(worker, handle);
    } else {
        require(dragon_pool_free(pool, handle) == 0);
        handle->generation = 0;
    }
}

static void leave(struct worker *worker)
{
    dragon_member_leave(&worker->member);
    for (int i = 0; i < N_OWN; i++) {
        require(worker->own[i].generation == 0 || dragon_pool_free(pool, &worker->own[i]) < 0);
        worker->own[i].generation = 0;
    }
}

/* Another member, with blocks that only a sweep frees. */
static void be_killed(struct worker *worker)
{
    struct dragon_handle handle;

    for (int i = 0; i < N_OWN; i++)
        alloc(worker, &handle);
    kill(getpid(), SIGKILL);
}

static void fork_one(struct worker *worker)
{
    int status;
    pid_t pid = fork();

    require(pid >= 0);
    if (pid == 0)
        be_killed(worker);
    require(waitpid(pid, &status, 0) == pid);
    require(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    for (int i = 0; i < N_STEPS; i++) {
        switch (seed_below(&worker->seed, 16)) {
        case 0:
            leave(worker);
            break;
        case 1:
            (void)dragon_members_sweep(pool);
            break;
        case 2:
            fork_one(worker);
            break;
        default:
            change_one(worker);
        }
    }
    leave(worker);
    return NULL;
}

static void check_all_came_back(void)
{
    const struct dragon_members_shared *table = dragon_pool_root(pool);
    struct dragon_pool_statistics statistics;

    (void)dragon_members_sweep(pool);
    for (uint32_t i = 0; i < DRAGON_MEMBERS_MAX; i++)
        require(dragon_peek(&table->is_taken[i]) == 0);
    dragon_pool_statistics(pool, &statistics);
    require(statistics.n_blocks == 0);
    require(dragon_pool_check(pool));
}

static void run_round(struct seed *seed)
{
    struct worker workers[N_THREADS] = {0};
    pthread_t threads[N_THREADS];

    require(dragon_pool_create_managed(UINT64_C(1) << 22, 7, 1, &pool) == 0);
    require(dragon_members_init(pool) == 0);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i].seed = seed_from(seed_next(seed));
        dragon_member_init(&workers[i].member, pool);
        require(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        require(pthread_join(threads[i], NULL) == 0);
    check_all_came_back();
    dragon_pool_close(pool);
}

int main(int argc, char **argv)
{
    int n = stress_run(argc, argv, run_round);

    printf("stress_members: %d rounds of %d steps\n", n, N_THREADS * N_STEPS);
    return 0;
}
