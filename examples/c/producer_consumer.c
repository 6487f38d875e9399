/*
 * Producers fill blocks of shared memory and send them to a consumer, which adds up what is in
 * them: a block changes its owner, its bytes stay where they are.
 *
 *     cc producer_consumer.c $(pkg-config --cflags --libs dragon) -o producer_consumer
 *     ./producer_consumer [PRODUCERS [BLOCKS [KIBIBYTES]]]
 */

#include <dragon.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PRODUCERS 16
#define NODE 1
#define POOL_NUMBER 1
#define BLOCKS_ON_THE_WAY 8

struct job {
    int n_producers;
    uint64_t n_blocks;    /* of each producer */
    uint64_t block_bytes; /* a multiple of 8 */
    struct dragon_pool *pool;
    struct dragon_channel channel;
};

static int failed(const char *what, int r)
{
    fprintf(stderr, "producer_consumer: %s: %s\n", what, r < 0 ? strerror(-r) : "no room");
    return EXIT_FAILURE;
}

/* Who holds a block: what a dead process held, another can free (dragon_in_flight_sweep). */
static uint32_t holder_of(int index)
{
    return DRAGON_HOLDER_FIRST_SLOT + (uint32_t)index;
}

static int create_channel(struct job *job)
{
    struct dragon_channel_options options = {BLOCKS_ON_THE_WAY, UINT64_MAX};
    uint64_t n_most = BLOCKS_ON_THE_WAY + (uint64_t)job->n_producers + 1;
    int r;

    r = dragon_pool_create_managed(n_most * (job->block_bytes + (64 << 10)) + (1 << 20), NODE,
                                   POOL_NUMBER, &job->pool);
    if (r == 0)
        r = dragon_channel_create(job->pool, &options, &job->channel);
    return r;
}

/* ---- a producer ---- */

static void fill(uint64_t *words, uint64_t n_words, uint64_t seed)
{
    for (uint64_t i = 0; i < n_words; i++)
        words[i] = seed + i;
}

static int produce_one(struct job *job, int index, uint64_t number)
{
    struct dragon_message message = {0};
    struct dragon_handle block;
    uint64_t size_bytes;
    void *address;
    int r;

    r = dragon_pool_alloc(job->pool, job->block_bytes, holder_of(index), &block);
    if (r == 0)
        r = dragon_pool_resolve(job->pool, &block, &address, &size_bytes);
    if (r != 0)
        return r;
    fill(address, job->block_bytes / 8, (uint64_t)index * job->n_blocks + number);
    message.block_offset = block.offset;
    message.block_generation = block.generation;
    message.block_lines = (uint32_t)((job->block_bytes + 63) / 64);
    r = dragon_channel_send(&job->channel, &message, DRAGON_FOREVER); /* now it is not ours */
    if (r != 0)
        dragon_pool_free(job->pool, &block);
    return r;
}

static int produce(struct job *job, int index)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < job->n_blocks; i++)
        r = produce_one(job, index, i);
    return r;
}

static int start_producers(struct job *job)
{
    pid_t parent = getpid();

    for (int i = 0; i < job->n_producers; i++) {
        pid_t pid = fork();

        if (pid < 0)
            return -errno;
        if (pid > 0)
            continue;
        /* Nobody would empty the channel if the consumer were killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? produce(job, i) : EXIT_FAILURE);
    }
    return 0;
}

/* ---- the consumer ---- */

static int consume_one(struct job *job, uint64_t *sum)
{
    struct dragon_handle block = {.node = NODE, .pool = POOL_NUMBER};
    struct dragon_message message;
    uint64_t size_bytes;
    const uint64_t *words;
    void *address;
    int r;

    /* A producer that failed sends nothing more: do not wait for it for ever. */
    r = dragon_channel_receive(&job->channel, holder_of(job->n_producers), &message,
                               dragon_deadline_after_ns(10 * DRAGON_NS_PER_S));
    if (r != 0)
        return r;
    block.offset = message.block_offset;
    block.generation = message.block_generation;
    r = dragon_pool_resolve(job->pool, &block, &address, &size_bytes);
    if (r != 0)
        return r;
    words = address;
    for (uint64_t i = 0; i < job->block_bytes / 8; i++)
        *sum += words[i];
    return dragon_pool_free(job->pool, &block);
}

static int run_job(struct job *job)
{
    struct dragon_pool_statistics before, after;
    uint64_t n_all = (uint64_t)job->n_producers * job->n_blocks, sum = 0;
    int status, r;

    dragon_pool_statistics(job->pool, &before);
    r = start_producers(job);
    for (uint64_t i = 0; r == 0 && i < n_all; i++)
        r = consume_one(job, &sum);
    if (r != 0)
        return failed("a block is missing", r); /* the producers end with this process */
    while (wait(&status) > 0)
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            return failed("a producer failed", -EIO);
    dragon_pool_statistics(job->pool, &after);
    printf("%llu blocks of %llu KiB from %d producers: sum %016llx\n", (unsigned long long)n_all,
           (unsigned long long)job->block_bytes / 1024, job->n_producers, (unsigned long long)sum);
    printf("%lld blocks left in the pool\n", (long long)(after.n_blocks - before.n_blocks));
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct job job = {
        .n_producers = argc > 1 ? atoi(argv[1]) : 2,
        .n_blocks = argc > 2 ? strtoull(argv[2], NULL, 10) : 100,
        .block_bytes = (argc > 3 ? strtoull(argv[3], NULL, 10) : 1024) * 1024,
    };
    int r, status;

    if (job.n_producers < 1 || job.n_producers > MAX_PRODUCERS || job.block_bytes < 1024 ||
        job.block_bytes > UINT64_C(1) << 30) {
        fprintf(stderr, "usage: producer_consumer [PRODUCERS (1 to %d) [BLOCKS [KIBIBYTES]]]\n",
                MAX_PRODUCERS);
        return 2;
    }
    r = create_channel(&job);
    if (r != 0)
        return failed("no channel", r);
    status = run_job(&job);
    dragon_pool_close(job.pool);
    return status;
}
