/*
 * One measurement of the core library, or of the bare probe that it is held against:
 *
 *     bench_core NAME SIZE_BYTES PINNED(0|1)
 *
 * prints its result, and for the fans the share of the slowest producer. bench_core.py knows the
 * names and makes the table.
 *
 * Two processes are a parent that drives and measures and a forked child, on cores 0 and 1 if
 * pinned. All of them map what they share before the fork, the probes a plain anonymous mapping.
 */

#include "dragon.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEASURE_NS INT64_C(150000000)
#define MAX_BATCHES 65536
#define NODE 1
#define POOL_NUMBER 1
#define POOL_BYTES (UINT64_C(1) << 30)
#define DEPTH 4      /* buffers in use, where messages carry a payload */
#define FAN_DEPTH 64 /* and where they are 8 bytes */
#define MAX_FAN 4
#define LOOKS_BEFORE_YIELD 2000
#define N_HELD 64 /* blocks that live at a time in alloc_many */
#define N_REMOTE UINT64_C(100000)
#define REMOTE_ROUNDS 5
#define N_DEAD UINT64_C(1000000)
#define LARGEST_BYTES (UINT64_C(64) << 20)

enum { KIND_DATA = 1, KIND_END };

/* What the processes of a measurement share besides the pool. A line for each word. */
struct shared {
    _Alignas(64) _Atomic uint64_t ping;
    _Alignas(64) _Atomic uint64_t pong;
    _Alignas(64) _Atomic uint32_t stop;
    _Alignas(64) _Atomic uint64_t sent[MAX_FAN * 8]; /* every 8th, so a line each */
    _Alignas(64) _Atomic uint64_t received[MAX_FAN * 8];
};

static bool is_pinned;
static struct shared *shared;
static struct dragon_pool *pool;

/* ---- common ---- */

static void must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "bench_core: %s failed: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void pin(int index)
{
    cpu_set_t cores;

    if (!is_pinned)
        return;
    CPU_ZERO(&cores);
    CPU_SET(index % (int)sysconf(_SC_NPROCESSORS_ONLN), &cores);
    must(sched_setaffinity(0, sizeof cores, &cores) == 0, "sched_setaffinity");
}

static void *map_shared(size_t size_bytes)
{
    void *base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    must(base != MAP_FAILED, "mmap");
    return base;
}

static unsigned char *private_buffer(uint64_t size_bytes)
{
    unsigned char *buffer = malloc(size_bytes);

    must(buffer != NULL, "malloc");
    memset(buffer, 1, size_bytes);
    return buffer;
}

/* Run body(argument) in a child on core `core`. */
static pid_t start(void (*body)(void *), void *argument, int core)
{
    pid_t pid = fork();

    must(pid >= 0, "fork");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(core);
    body(argument);
    _exit(EXIT_SUCCESS);
}

static void wait_for_children(void)
{
    int status;

    while (wait(&status) > 0)
        must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child");
}

static void must_channel(int r, const char *what)
{
    if (r == 0)
        return;
    fprintf(stderr, "bench_core: %s: %d\n", what, r);
    exit(EXIT_FAILURE);
}

static void make_channel(struct dragon_channel *channel, uint64_t max_messages)
{
    struct dragon_channel_options options = {max_messages, UINT64_MAX};

    must_channel(dragon_channel_create(pool, &options, channel), "dragon_channel_create");
}

/* Call round(argument) in batches until time is up, after two batches to warm up; the durations of
 * the batches into durations. Their number. */
static size_t run_batches(void (*round)(void *), void *argument, uint64_t batch,
                          int64_t durations[MAX_BATCHES])
{
    int64_t start_ns = 0, before_ns = 0, now_ns;
    size_t n = 0;

    for (int i = -2; i < MAX_BATCHES; i++) {
        now_ns = dragon_now_ns();
        if (i == 0)
            start_ns = now_ns;
        if (i > 0)
            durations[n++] = now_ns - before_ns;
        if (n > 0 && now_ns - start_ns > MEASURE_NS)
            break;
        before_ns = now_ns;
        for (uint64_t k = 0; k < batch; k++)
            round(argument);
    }
    return n;
}

static int compare_durations(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(int64_t *durations, size_t n)
{
    qsort(durations, n, sizeof durations[0], compare_durations);
    return (double)durations[n / 2];
}

/* ns a call in the median batch: what else runs on the machine does not count. */
static double ns_a_call(void (*round)(void *), void *argument, uint64_t batch)
{
    static int64_t durations[MAX_BATCHES];
    size_t n = run_batches(round, argument, batch, durations);

    return median(durations, n) / (double)batch;
}

/* ns a call over all batches: for streams, whose calls are short until the channel is full and
 * then long. */
static double mean_ns_a_call(void (*round)(void *), void *argument, uint64_t batch)
{
    static int64_t durations[MAX_BATCHES];
    size_t n = run_batches(round, argument, batch, durations);
    int64_t total_ns = 0;

    for (size_t i = 0; i < n; i++)
        total_ns += durations[i];
    return (double)total_ns / (double)(n * batch);
}

/* ---- one process: send and receive; its probe: two robust locks around an 8-byte copy ---- */

static void local_round(void *argument)
{
    struct dragon_channel *channel = argument;
    struct dragon_message message;

    message.kind = KIND_DATA;
    message.size_bytes = 8;
    message.block_generation = 0;
    message.block_lines = 0;
    memset(message.bytes, 5, 8);
    must_channel(dragon_channel_try_send(channel, &message), "send");
    must_channel(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &message), "receive");
}

static double measure_local(uint64_t size_bytes)
{
    struct dragon_channel channel;

    (void)size_bytes;
    make_channel(&channel, FAN_DEPTH);
    pin(0);
    return ns_a_call(local_round, &channel, 1000);
}

static void local_probe_round(void *argument)
{
    struct dragon_mutex *mutexes = argument;
    volatile uint64_t *word = (volatile uint64_t *)(mutexes + 2);

    must_channel(dragon_mutex_lock(&mutexes[0]), "lock");
    *word = 5;
    dragon_mutex_unlock(&mutexes[0]);
    must_channel(dragon_mutex_lock(&mutexes[1]), "lock");
    (void)*word;
    dragon_mutex_unlock(&mutexes[1]);
}

static double probe_local(uint64_t size_bytes)
{
    struct dragon_mutex *mutexes = map_shared(4096);

    (void)size_bytes;
    must_channel(dragon_mutex_init(&mutexes[0]), "mutex");
    must_channel(dragon_mutex_init(&mutexes[1]), "mutex");
    pin(0);
    return ns_a_call(local_probe_round, mutexes, 1000);
}

/* ---- one way between two processes: half a round trip ---- */

struct pair {
    struct dragon_channel there;
    struct dragon_channel back;
    bool is_blocking;
};

static void receive_spinning(struct dragon_channel *channel, struct dragon_message *message_out)
{
    int r;

    while ((r = dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, message_out)) != 0)
        if (r != DRAGON_CHANNEL_EMPTY && r != DRAGON_CHANNEL_BUSY)
            must_channel(r, "receive");
}

static void receive(struct pair *pair, struct dragon_channel *channel,
                    struct dragon_message *message_out)
{
    if (pair->is_blocking)
        must_channel(
            dragon_channel_receive(channel, DRAGON_HOLDER_NONE, message_out, DRAGON_FOREVER),
            "receive");
    else
        receive_spinning(channel, message_out);
}

static void echo(void *argument)
{
    struct pair *pair = argument;
    struct dragon_message message;

    do {
        receive(pair, &pair->there, &message);
        must_channel(dragon_channel_send(&pair->back, &message, DRAGON_FOREVER), "send");
    } while (message.kind != KIND_END);
}

static void round_trip(void *argument)
{
    struct pair *pair = argument;
    struct dragon_message message = {.kind = KIND_DATA, .size_bytes = 8};

    must_channel(dragon_channel_send(&pair->there, &message, DRAGON_FOREVER), "send");
    receive(pair, &pair->back, &message);
}

static double measure_one_way(bool is_blocking)
{
    struct dragon_message end = {.kind = KIND_END};
    struct pair pair = {.is_blocking = is_blocking};
    double ns;

    make_channel(&pair.there, FAN_DEPTH);
    make_channel(&pair.back, FAN_DEPTH);
    start(echo, &pair, 1);
    pin(0);
    ns = ns_a_call(round_trip, &pair, 100) / 2;
    must_channel(dragon_channel_send(&pair.there, &end, DRAGON_FOREVER), "send");
    receive(&pair, &pair.back, &end);
    return ns;
}

static double measure_one_way_spinning(uint64_t size_bytes)
{
    (void)size_bytes;
    return measure_one_way(false);
}

static double measure_one_way_blocking(uint64_t size_bytes)
{
    (void)size_bytes;
    return measure_one_way(true);
}

static void echo_line(void *argument)
{
    uint64_t expected = 1;

    (void)argument;
    while (!dragon_peek(&shared->stop))
        if (dragon_observe(&shared->ping) == expected)
            dragon_publish(&shared->pong, expected++);
}

static void line_round_trip(void *argument)
{
    uint64_t *n = argument;

    dragon_publish(&shared->ping, ++*n);
    while (dragon_observe(&shared->pong) != *n)
        ;
}

static double probe_one_way(uint64_t size_bytes)
{
    uint64_t n = 0;
    double ns;

    (void)size_bytes;
    start(echo_line, NULL, 1);
    pin(0);
    ns = ns_a_call(line_round_trip, &n, 100) / 2;
    dragon_publish(&shared->stop, 1);
    return ns;
}

/* ---- payloads: copied in and out, or only handed over ---- */

struct stream {
    struct dragon_channel channel;
    uint64_t size_bytes;
    uint64_t copy_bytes; /* of the payload that is copied on either side */
    unsigned char *buffer;
};

static void *resolve(const struct dragon_handle *block)
{
    uint64_t size_bytes;
    void *address;

    must_channel(dragon_pool_resolve(pool, block, &address, &size_bytes), "resolve");
    return address;
}

static void send_block(void *argument)
{
    struct stream *stream = argument;
    struct dragon_message message = {.kind = KIND_DATA};
    struct dragon_handle block;

    must_channel(dragon_pool_alloc(pool, stream->size_bytes, DRAGON_HOLDER_FIRST_SLOT, &block),
                 "alloc");
    memcpy(resolve(&block), stream->buffer, stream->copy_bytes);
    message.block_offset = block.offset;
    message.block_generation = block.generation;
    message.block_lines = (uint32_t)(stream->size_bytes / 64);
    must_channel(dragon_channel_send(&stream->channel, &message, DRAGON_FOREVER), "send");
}

static void receive_blocks(void *argument)
{
    struct stream *stream = argument;
    struct dragon_handle block = {.node = NODE, .pool = POOL_NUMBER};
    struct dragon_message message;

    for (;;) {
        must_channel(dragon_channel_receive(&stream->channel, DRAGON_HOLDER_FIRST_SLOT + 1,
                                            &message, DRAGON_FOREVER),
                     "receive");
        if (message.kind == KIND_END)
            return;
        block.offset = message.block_offset;
        block.generation = message.block_generation;
        memcpy(stream->buffer, resolve(&block), stream->copy_bytes);
        must_channel(dragon_pool_free(pool, &block), "free");
    }
}

static double measure_stream(uint64_t size_bytes, uint64_t copy_bytes)
{
    struct stream stream = {.size_bytes = size_bytes, .copy_bytes = copy_bytes};
    struct dragon_message end = {.kind = KIND_END};
    double ns;

    stream.buffer = private_buffer(size_bytes);
    make_channel(&stream.channel, DEPTH - 2); /* one more is filled, one is read */
    start(receive_blocks, &stream, 1);
    pin(0);
    ns = mean_ns_a_call(send_block, &stream, 4 * DEPTH);
    must_channel(dragon_channel_send(&stream.channel, &end, DRAGON_FOREVER), "send");
    free(stream.buffer);
    return ns;
}

static double measure_copy(uint64_t size_bytes)
{
    return measure_stream(size_bytes, size_bytes);
}

static double measure_transfer(uint64_t size_bytes)
{
    return measure_stream(size_bytes, 8);
}

/* The probe: as many slots, memcpy on either side, and two counters to spin on, with a yield now
 * and then: where something else needs a core, spinning on would measure the scheduler. */
struct copy_probe {
    unsigned char *slots;
    unsigned char *buffer;
    uint64_t size_bytes;
    uint64_t n_sent;
};

static void copy_in(void *argument)
{
    struct copy_probe *probe = argument;

    for (unsigned n = 1; probe->n_sent - dragon_observe(&shared->pong) >= DEPTH; n++)
        if (n % LOOKS_BEFORE_YIELD == 0)
            sched_yield();
    memcpy(probe->slots + probe->n_sent % DEPTH * probe->size_bytes, probe->buffer,
           probe->size_bytes);
    dragon_publish(&shared->ping, ++probe->n_sent);
}

static void copy_out(void *argument)
{
    struct copy_probe *probe = argument;
    uint64_t n = 0;

    for (unsigned looks = 1; !dragon_peek(&shared->stop); looks++) {
        if (dragon_observe(&shared->ping) == n) {
            if (looks % LOOKS_BEFORE_YIELD == 0)
                sched_yield();
            continue;
        }
        memcpy(probe->buffer, probe->slots + n % DEPTH * probe->size_bytes, probe->size_bytes);
        dragon_publish(&shared->pong, ++n);
    }
}

static double probe_copy(uint64_t size_bytes)
{
    struct copy_probe probe = {.size_bytes = size_bytes};
    double ns;

    probe.slots = map_shared(DEPTH * size_bytes);
    probe.buffer = private_buffer(size_bytes);
    start(copy_out, &probe, 1);
    pin(0);
    ns = mean_ns_a_call(copy_in, &probe, 4 * DEPTH);
    dragon_publish(&shared->stop, 1);
    free(probe.buffer);
    return ns;
}

/* ---- many producers and consumers on one channel; ns a message ---- */

struct fan {
    struct dragon_channel channel;
    int index;
};

static void fan_produce(void *argument)
{
    struct fan *fan = argument;
    struct dragon_message message = {.kind = KIND_DATA, .size_bytes = 8};
    uint64_t n = 0;

    while (!dragon_peek(&shared->stop)) {
        must_channel(dragon_channel_send(&fan->channel, &message, DRAGON_FOREVER), "send");
        dragon_poke(&shared->sent[8 * fan->index], ++n);
    }
}

static void fan_consume(void *argument)
{
    struct fan *fan = argument;
    struct dragon_message message;
    uint64_t n = 0;

    for (;;) {
        must_channel(
            dragon_channel_receive(&fan->channel, DRAGON_HOLDER_NONE, &message, DRAGON_FOREVER),
            "receive");
        if (message.kind == KIND_END)
            return;
        dragon_poke(&shared->received[8 * fan->index], ++n);
    }
}

static uint64_t total_of(_Atomic uint64_t *counts, int n, uint64_t *least_out)
{
    uint64_t total = 0;

    *least_out = UINT64_MAX;
    for (int i = 0; i < n; i++) {
        uint64_t count = dragon_peek(&counts[8 * i]);

        total += count;
        *least_out = count < *least_out ? count : *least_out;
    }
    return total;
}

static double measure_fan(int n)
{
    struct dragon_message end = {.kind = KIND_END};
    pid_t producers[MAX_FAN];
    struct fan fan;
    uint64_t total, before, least, unused;
    int64_t start_ns, end_ns;

    make_channel(&fan.channel, FAN_DEPTH);
    for (fan.index = 0; fan.index < n; fan.index++) {
        producers[fan.index] = start(fan_produce, &fan, fan.index);
        start(fan_consume, &fan, fan.index + 1);
    }
    usleep(20000);
    before = total_of(shared->received, n, &unused);
    start_ns = dragon_now_ns();
    usleep((useconds_t)(2 * MEASURE_NS / 1000));
    total = total_of(shared->received, n, &unused) - before;
    end_ns = dragon_now_ns();
    dragon_publish(&shared->stop, 1);
    for (int i = 0; i < n; i++)
        must(waitpid(producers[i], NULL, 0) == producers[i], "a producer");
    for (int i = 0; i < n; i++)
        must_channel(dragon_channel_send(&fan.channel, &end, DRAGON_FOREVER), "send");
    before = total_of(shared->sent, n, &least);
    printf("share %.3f\n", (double)least * n / (double)before);
    return (double)(end_ns - start_ns) / (double)total;
}

static double measure_fan_1(uint64_t size_bytes)
{
    (void)size_bytes;
    return measure_fan(1);
}

static double measure_fan_4(uint64_t size_bytes)
{
    (void)size_bytes;
    return measure_fan(MAX_FAN);
}

/* ---- allocate and free: one at a time, or 64 and then all back ---- */

static void pool_round(void *argument)
{
    uint64_t *size_bytes = argument;
    struct dragon_handle block;

    must_channel(dragon_pool_alloc(pool, *size_bytes, DRAGON_HOLDER_FIRST_SLOT, &block), "alloc");
    must_channel(dragon_pool_free(pool, &block), "free");
}

static void malloc_round(void *argument)
{
    uint64_t *size_bytes = argument;
    void *volatile block = malloc(*size_bytes);

    must(block != NULL, "malloc");
    free(block);
}

static void pool_round_of_many(void *argument)
{
    uint64_t *size_bytes = argument;
    struct dragon_handle blocks[N_HELD];

    for (int i = 0; i < N_HELD; i++)
        must_channel(dragon_pool_alloc(pool, *size_bytes, DRAGON_HOLDER_FIRST_SLOT, &blocks[i]),
                     "alloc");
    for (int i = 0; i < N_HELD; i++)
        must_channel(dragon_pool_free(pool, &blocks[i]), "free");
}

static void malloc_round_of_many(void *argument)
{
    uint64_t *size_bytes = argument;
    void *volatile blocks[N_HELD];

    for (int i = 0; i < N_HELD; i++)
        blocks[i] = malloc(*size_bytes);
    for (int i = 0; i < N_HELD; i++)
        free(blocks[i]);
}

static double measure_alloc(uint64_t size_bytes)
{
    pin(0);
    return ns_a_call(pool_round, &size_bytes, 1000);
}

static double probe_alloc(uint64_t size_bytes)
{
    pin(0);
    return ns_a_call(malloc_round, &size_bytes, 1000);
}

static double measure_alloc_many(uint64_t size_bytes)
{
    pin(0);
    return ns_a_call(pool_round_of_many, &size_bytes, 100) / N_HELD;
}

static double probe_alloc_many(uint64_t size_bytes)
{
    pin(0);
    return ns_a_call(malloc_round_of_many, &size_bytes, 100) / N_HELD;
}

/* ---- blocks of another process, blocks of a dead one ---- */

static struct dragon_handle *held; /* shared */

static void alloc_held(uint64_t n, uint64_t size_bytes)
{
    for (uint64_t i = 0; i < n; i++)
        must_channel(dragon_pool_alloc(pool, size_bytes, DRAGON_HOLDER_FIRST_SLOT, &held[i]),
                     "alloc");
}

static void free_held(void *argument)
{
    int64_t start_ns = dragon_now_ns();

    (void)argument;
    for (uint64_t i = 0; i < N_REMOTE; i++)
        must_channel(dragon_pool_free(pool, &held[i]), "free");
    atomic_store(&shared->ping, (uint64_t)(dragon_now_ns() - start_ns));
}

/* The median of some rounds: blocks are made here and freed in a child. */
static double measure_free_remote(uint64_t size_bytes)
{
    int64_t durations[REMOTE_ROUNDS];

    pin(0);
    held = map_shared(N_REMOTE * sizeof *held);
    for (int i = 0; i < REMOTE_ROUNDS; i++) {
        alloc_held(N_REMOTE, size_bytes);
        start(free_held, NULL, 1);
        wait_for_children();
        durations[i] = (int64_t)atomic_load(&shared->ping);
    }
    return median(durations, REMOTE_ROUNDS) / (double)N_REMOTE;
}

static void alloc_and_die(void *size_bytes)
{
    struct dragon_handle block;

    for (uint64_t i = 0; i < N_DEAD; i++)
        must_channel(
            dragon_pool_alloc(pool, *(uint64_t *)size_bytes, DRAGON_HOLDER_FIRST_SLOT, &block),
            "alloc");
    raise(SIGKILL);
}

static double measure_recover(uint64_t size_bytes)
{
    int64_t start_ns;
    int status;

    pin(0);
    start(alloc_and_die, &size_bytes, 1);
    must(wait(&status) > 0 && WIFSIGNALED(status), "the child that dies");
    start_ns = dragon_now_ns();
    must(dragon_pool_sweep(pool, DRAGON_HOLDER_FIRST_SLOT) == N_DEAD, "dragon_pool_sweep");
    return (double)(dragon_now_ns() - start_ns);
}

/* ---- choose ---- */

struct measurement {
    const char *name;
    double (*run)(uint64_t size_bytes);
};

static const struct measurement measurements[] = {
    {"local", measure_local},
    {"local_probe", probe_local},
    {"one_way", measure_one_way_spinning},
    {"one_way_blocking", measure_one_way_blocking},
    {"one_way_probe", probe_one_way},
    {"copy", measure_copy},
    {"copy_probe", probe_copy},
    {"transfer", measure_transfer},
    {"fan_1", measure_fan_1},
    {"fan_4", measure_fan_4},
    {"alloc", measure_alloc},
    {"alloc_probe", probe_alloc},
    {"alloc_many", measure_alloc_many},
    {"alloc_many_probe", probe_alloc_many},
    {"free_remote", measure_free_remote},
    {"recover", measure_recover},
};

static const struct measurement *find(const char *name)
{
    for (size_t i = 0; i < sizeof measurements / sizeof measurements[0]; i++)
        if (strcmp(measurements[i].name, name) == 0)
            return &measurements[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const struct measurement *measurement = argc == 4 ? find(argv[1]) : NULL;
    uint64_t size_bytes = argc == 4 ? strtoull(argv[2], NULL, 10) : 0;

    if (!measurement || size_bytes > LARGEST_BYTES) {
        fprintf(stderr, "usage: bench_core NAME SIZE_BYTES PINNED\n");
        return 2;
    }
    is_pinned = atoi(argv[3]);
    shared = map_shared(sizeof *shared);
    must_channel(dragon_pool_create_managed(POOL_BYTES, NODE, POOL_NUMBER, &pool), "pool");
    printf("ns %.3f\n", measurement->run(size_bytes));
    wait_for_children();
    dragon_pool_close(pool);
    return EXIT_SUCCESS;
}
