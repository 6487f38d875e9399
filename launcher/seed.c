/*
 * The seed's life: plant() clones; the copy waits for orders in tend(); for each it forks; the
 * sprout reads its words and leaves tend() and plant() into main().
 *
 * What is kept here is what main(), Python and the end of the process ask for; the seed is one by
 * nature.
 */

#include "seed.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/fork.h"
#include "os/os.h"
#include "os/socket.h"

#define LONGEST_END_NS (DRAGON_NS_PER_S / 5)
#define MAX_ORDER_BYTES (UINT32_C(64) << 20) /* the kernel allows less for an exec */

struct order_header {
    uint32_t size_bytes;
    uint32_t n_words;
    uint32_t n_variables;
};

static int seed_socket = -1;
static uint64_t seed_socket_id;
static int seed_error = -ENOSYS;
static int32_t planted_pid; /* the seed's; 0: there is none */

/* At the planter's end: a dead process is something that somebody would have to reap, so the seed
 * gets time to reap its sprouts, and is reaped itself. */
static void uproot(void)
{
    if (planted_pid <= 0)
        return;
    if (dragon_seed_socket() >= 0)
        dragon_os_close(seed_socket);
    dragon_os_end_hidden(planted_pid, dragon_deadline_after_ns(LONGEST_END_NS));
}

/* A forked copy of the planter has no seed: the children would be its parent's. */
static void forget_in_copy(void)
{
    if (dragon_seed_socket() >= 0)
        dragon_os_close(seed_socket);
    seed_socket = -1;
    seed_error = -ECHILD;
    planted_pid = 0;
}

/* ---- the sprout ---- */

/* Receive exactly size_bytes, which came in packets. */
static int receive_all(char *bytes, size_t size_bytes)
{
    int no_fd;

    while (size_bytes > 0) {
        int n = dragon_os_receive(DRAGON_SEED_SPROUT_FD, bytes, size_bytes, &no_fd);

        if (n <= 0)
            return n < 0 ? n : -EPIPE;
        bytes += n;
        size_bytes -= (size_t)n;
    }
    return 0;
}

/* A NULL-terminated vector of n strings that lie one after another from *at on. */
static char **take_strings(char **at, const char *end, uint32_t n)
{
    char **strings = calloc((size_t)n + 1, sizeof *strings);

    for (uint32_t i = 0; strings && i < n; i++) {
        size_t left = (size_t)(end - *at);
        size_t length = strnlen(*at, left);

        if (length == left) {
            free(strings);
            return NULL;
        }
        strings[i] = *at;
        *at += length + 1;
    }
    return strings;
}

/* What the words and variables point into stays for the life of the process. */
static int read_order(int *argc, char ***argv)
{
    struct order_header header;
    char *text, *at;
    int r, no_fd;

    r = dragon_os_receive(DRAGON_SEED_SPROUT_FD, &header, sizeof header, &no_fd);
    if (r != sizeof header || header.size_bytes > MAX_ORDER_BYTES || header.n_words < 1)
        return -EBADMSG;
    text = malloc(header.size_bytes);
    if (!text)
        return -ENOMEM;
    r = receive_all(text, header.size_bytes);
    if (r < 0)
        return r;
    at = text;
    *argv = take_strings(&at, text + header.size_bytes, header.n_words);
    environ = take_strings(&at, text + header.size_bytes, header.n_variables);
    *argc = (int)header.n_words;
    return *argv && environ ? 0 : -EBADMSG;
}

/* In the sprout: become a process like one that was just executed. Signals stay blocked: a fork
 * server answers to none, and gives those that it makes the mask they are to have. */
static int sprout(int32_t seed_pid, int order_fd, int *argc, char ***argv)
{
    int r;

    r = dragon_os_die_with_parent(seed_pid);
    if (r == 0)
        r = dup2(order_fd, DRAGON_SEED_SPROUT_FD) < 0 ? -errno : 0;
    if (r < 0)
        return r;
    dragon_os_forget_files(DRAGON_SEED_SPROUT_FD);
    seed_socket = -1;
    seed_error = -ECHILD;
    return read_order(argc, argv);
}

/* ---- the seed ---- */

/* Reap the sprouts that have ended. The pid of the last one while it is not among them: until it is
 * reaped here, nobody else can have it. */
static int32_t reap(int32_t last_pid)
{
    int32_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        if (pid == last_pid)
            last_pid = 0;
    return last_pid;
}

/* Sprouts before the last have been let go of, and end by themselves. */
static _Noreturn void end_seed(int32_t last_pid)
{
    int status;

    last_pid = reap(last_pid);
    if (last_pid > 0 && kill(last_pid, SIGKILL) == 0)
        dragon_os_wait(last_pid, &status);
    _exit(0);
}

/* Returns in sprouts. In the seed never: it ends when the socket does. */
static void tend(int socket, int *argc, char ***argv)
{
    int32_t seed_pid = dragon_os_pid(), pid, last_pid = 0;
    char word[4];

    for (;;) {
        int order_fd, r;

        if (dragon_os_receive(socket, word, sizeof word, &order_fd) <= 0)
            end_seed(last_pid);
        if (order_fd < 0)
            continue;
        last_pid = reap(last_pid);
        r = dragon_os_fork(&pid);
        if (r == 0 && pid == 0) {
            r = sprout(seed_pid, order_fd, argc, argv);
            if (r == 0)
                return;
            dragon_os_report(DRAGON_SEED_SPROUT_FD, -r);
            _exit(1);
        }
        if (r < 0)
            dragon_os_report(order_fd, -r);
        else
            last_pid = pid;
        dragon_os_close(order_fd);
    }
}

static void become_seed(int32_t planter_pid, int socket)
{
    dragon_os_block_signals();
    signal(SIGCHLD, SIG_DFL); /* the planter's own parent may have left it ignored */
    if (dragon_os_die_with_parent(planter_pid) < 0)
        _exit(0);
    dragon_os_forget_files(socket);
}

int dragon_seed_plant(int *argc, char ***argv)
{
    int32_t planter_pid = dragon_os_pid(), pid;
    int fds[2], r;

    seed_error = r = dragon_os_socket_pair(fds);
    if (r < 0)
        return 0;
    seed_error = r = dragon_os_fork_hidden(&pid);
    if (r < 0) {
        dragon_os_close(fds[0]);
        dragon_os_close(fds[1]);
        return 0;
    }
    if (pid == 0) {
        /* It may be one of the standard descriptors, which the planter need not have. */
        fds[1] = dragon_os_move_high(fds[1]);
        become_seed(planter_pid, fds[1]);
        tend(fds[1], argc, argv);
        return DRAGON_SEED_SPROUTED;
    }
    dragon_os_close(fds[1]);
    seed_socket = dragon_os_move_high(fds[0]);
    seed_socket_id = dragon_os_socket_id(seed_socket);
    planted_pid = pid;
    pthread_atfork(NULL, NULL, forget_in_copy);
    atexit(uproot);
    return 0;
}

/* A program may have closed what it does not know, and opened something else there. */
int dragon_seed_socket(void)
{
    if (seed_socket >= 0 && dragon_os_socket_id(seed_socket) != seed_socket_id) {
        seed_socket = -1;
        seed_error = -EBADF;
    }
    return seed_socket;
}

int dragon_seed_error(void)
{
    return seed_error;
}
