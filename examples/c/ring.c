/*
 * A ring of processes: each passes a token on to the next, through channels in a named pool, and
 * adds one to it. All it needs of the others is the pool's name and the handles of the channels.
 *
 *     cc ring.c $(pkg-config --cflags --libs dragon) -o ring
 *     ./ring [PROCESSES [ROUNDS]]
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

#define MAX_PROCESSES 64
#define NODE 1
#define POOL_NUMBER 1
#define POOL_BYTES (4 << 20)

struct ring {
    int n_processes;
    uint64_t n_rounds;
    char pool_name[32];
    struct dragon_handle channels[MAX_PROCESSES]; /* i: from process i - 1 to process i */
};

static int failed(const char *what, int r)
{
    fprintf(stderr, "ring: %s: %s\n", what, r < 0 ? strerror(-r) : "no room");
    return EXIT_FAILURE;
}

/* Take the token, add one, pass it on. The first process, 0, brings it in and keeps it at the end.
 */
static int pass_token(const struct ring *ring, int index, struct dragon_channel *inbox,
                      struct dragon_channel *outbox, uint64_t *token_out)
{
    struct dragon_message message = {.size_bytes = sizeof *token_out};
    uint64_t token = 0;
    int r = index == 0 ? dragon_channel_send(outbox, &message, DRAGON_FOREVER) : 0;

    for (uint64_t round = 1; r == 0 && round <= ring->n_rounds; round++) {
        r = dragon_channel_receive(inbox, DRAGON_HOLDER_NONE, &message, DRAGON_FOREVER);
        if (r != 0 || message.size_bytes != sizeof token)
            return r < 0 ? r : -EBADMSG;
        if (index == 0 && round == 1)
            dragon_pool_unlink(ring->pool_name); /* all have it open: nothing can be left behind */
        memcpy(&token, message.bytes, sizeof token);
        token++;
        memcpy(message.bytes, &token, sizeof token);
        if (index != 0 || round < ring->n_rounds)
            r = dragon_channel_send(outbox, &message, DRAGON_FOREVER);
    }
    *token_out = token;
    return r;
}

/* One process of the ring. It opens the pool for itself, at an address of its own. */
static int run_member(const struct ring *ring, int index, uint64_t *token_out)
{
    struct dragon_channel inbox, outbox;
    struct dragon_pool *pool;
    int r = dragon_pool_open_named(ring->pool_name, &pool);

    if (r < 0)
        return r;
    r = dragon_channel_attach(pool, &ring->channels[index], &inbox);
    if (r == 0)
        r = dragon_channel_attach(pool, &ring->channels[(index + 1) % ring->n_processes], &outbox);
    if (r == 0)
        r = pass_token(ring, index, &inbox, &outbox, token_out);
    dragon_pool_close(pool); /* the channels stay, until the pool goes with the last that has it */
    return r;
}

static int create_channels(struct ring *ring, struct dragon_pool *pool)
{
    struct dragon_channel_options options = {.max_messages = 1, .max_bytes = UINT64_MAX};
    struct dragon_channel channel;
    int r = 0;

    for (int i = 0; r == 0 && i < ring->n_processes; i++) {
        r = dragon_channel_create(pool, &options, &channel);
        ring->channels[i] = channel.object.handle;
    }
    return r;
}

static int start_members(const struct ring *ring)
{
    pid_t parent = getpid();
    uint64_t token;

    for (int i = 1; i < ring->n_processes; i++) {
        pid_t pid = fork();

        if (pid < 0)
            return -errno;
        if (pid > 0)
            continue;
        /* Nobody would pass the token on if the first process were killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? run_member(ring, i, &token) : EXIT_FAILURE);
    }
    return 0;
}

/* True if all the others ended well. */
static int wait_for_members(void)
{
    int status, all_well = 1;

    while (wait(&status) > 0)
        all_well = all_well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return all_well;
}

static int run_ring(struct ring *ring, struct dragon_pool *pool)
{
    uint64_t token;
    int r = create_channels(ring, pool);

    if (r == 0)
        r = start_members(ring);
    if (r == 0)
        r = run_member(ring, 0, &token);
    if (r != 0)
        return failed("the token is lost", r); /* the others end with this process */
    if (!wait_for_members())
        return failed("a member of the ring failed", -EIO);
    printf("%d processes, %llu rounds: the token is %llu\n", ring->n_processes,
           (unsigned long long)ring->n_rounds, (unsigned long long)token);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct ring ring = {
        .n_processes = argc > 1 ? atoi(argv[1]) : 4,
        .n_rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000,
    };
    struct dragon_pool *pool;
    int r, status;

    if (ring.n_processes < 1 || ring.n_processes > MAX_PROCESSES || ring.n_rounds < 1) {
        fprintf(stderr, "usage: ring [PROCESSES (1 to %d) [ROUNDS]]\n", MAX_PROCESSES);
        return 2;
    }
    snprintf(ring.pool_name, sizeof ring.pool_name, "/dragon-ring-%d", (int)getpid());
    r = dragon_pool_create_named(ring.pool_name, POOL_BYTES, NODE, POOL_NUMBER, &pool);
    if (r < 0)
        return failed("no pool", r);
    status = run_ring(&ring, pool);
    if (status != EXIT_SUCCESS)
        dragon_pool_unlink(ring.pool_name);
    dragon_pool_close(pool);
    return status;
}
