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
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/deadline.h"
#include "node/node.h"
#include "os/fork.h"
#include "os/os.h"
#include "os/rights.h"
#include "os/socket.h"

#define LONGEST_END_NS (DRAGON_NS_PER_S / 5)
#define LONGEST_DEATH_NS DRAGON_NS_PER_S
#define MAX_ORDER_BYTES (UINT32_C(64) << 20) /* the kernel allows less for an exec */

/* What the planter sends. Each is followed by something, but for the last. */
#define WORD_BYTES 4
#define MORE "more"
#define KEEP "keep"
#define NODE "node"
#define OVER "over"

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
    if (dragon_seed_socket() >= 0) {
        (void)send(seed_socket, OVER, WORD_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
        dragon_os_close(seed_socket);
    }
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
static int sprout(int32_t seed_pid, int32_t planter_pid, int order_fd, int *argc, char ***argv)
{
    int r;

    r = dragon_os_die_with_parent(seed_pid);
    if (r == 0)
        r = dup2(order_fd, DRAGON_SEED_SPROUT_FD) < 0 ? -errno : 0;
    if (r < 0)
        return r;
    dragon_os_join_group_of(planter_pid);
    dragon_os_forget_files(DRAGON_SEED_SPROUT_FD);
    seed_socket = -1;
    seed_error = -ECHILD;
    return read_order(argc, argv);
}

/* ---- the seed ---- */

/* What a seed knows. */
struct seed {
    int socket;
    int32_t planter_pid;
    int planter_pidfd; /* -1: the kernel has none for us, and ends the seed with the planter */
    int32_t last_pid;  /* of the last sprout; 0: there is none that was not reaped */
    int pool_fd;       /* of the planter's node; -1: not said */
    bool is_over;      /* the planter has said that it ends */
    char path[DRAGON_SEED_MAX_PATH_BYTES + 1]; /* a folder to remove; empty: none */
};

/* Reap the sprouts that have ended. Until the last one is reaped here, nobody else can have its
 * pid. */
static void reap(struct seed *seed)
{
    int32_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        if (pid == seed->last_pid)
            seed->last_pid = 0;
}

/* The planter's files are closed before it counts as ended. */
static bool has_planter_died(const struct seed *seed)
{
    struct dragon_os_poll_item item = {.fd = seed->planter_pidfd};

    return seed->planter_pidfd >= 0 &&
           dragon_os_poll(&item, 1, dragon_deadline_after_ns(LONGEST_DEATH_NS)) == 0 &&
           item.is_ready;
}

/* A planter that ends itself has ended its children before; else they are ended
 * by its end, just now, and may be in the middle of making the folder or something in it. */
static void remove_folder(const struct seed *seed)
{
    const struct timespec pause = {.tv_nsec = DRAGON_NS_PER_S / 25};

    for (int i = 0; i < (seed->is_over ? 1 : 10); i++) {
        if (i > 0)
            nanosleep(&pause, NULL);
        dragon_os_remove_tree(seed->path);
    }
}

/* Sprouts before the last have been let go of, and end by themselves. */
static _Noreturn void end_seed(struct seed *seed)
{
    int status;

    reap(seed);
    if (seed->last_pid > 0 && kill(seed->last_pid, SIGKILL) == 0)
        dragon_os_wait(seed->last_pid, &status);
    if (!seed->is_over && !has_planter_died(seed))
        _exit(0);
    if (!seed->is_over && seed->pool_fd >= 0)
        dragon_node_end_members(seed->pool_fd);
    if (seed->path[0])
        remove_folder(seed);
    _exit(0);
}

/* The next word of the planter; false at its end. What it sent before that comes first. */
static bool receive_word(const struct seed *seed, char *word_out, int *fd_out)
{
    struct dragon_os_poll_item items[] = {{.fd = seed->socket}, {.fd = seed->planter_pidfd}};
    size_t n = seed->planter_pidfd >= 0 ? 2 : 1;

    while (dragon_os_poll(items, n, DRAGON_FOREVER) != 0)
        continue;
    return items[0].is_ready &&
           dragon_os_receive(seed->socket, word_out, WORD_BYTES, fd_out) == WORD_BYTES;
}

/* 0; -EPERM: the planter has given up rights that the seed has; -errno: nobody can tell. */
static int check_planter(int32_t planter_pid)
{
    struct dragon_os_rights rights;
    int r = dragon_os_rights(&rights);

    if (r < 0)
        return r;
    r = dragon_os_check_rights(planter_pid, &rights);
    return r > 0 ? -EPERM : r;
}

/* False: the planter has ended in the middle of it. */
static bool receive_path(struct seed *seed)
{
    char path[DRAGON_SEED_MAX_PATH_BYTES + 1] = "";
    uint32_t size_bytes;

    if (recv(seed->socket, &size_bytes, sizeof size_bytes, MSG_WAITALL) != sizeof size_bytes ||
        size_bytes > DRAGON_SEED_MAX_PATH_BYTES ||
        recv(seed->socket, path, size_bytes, MSG_WAITALL) != (ssize_t)size_bytes)
        return false;
    if (check_planter(seed->planter_pid) == 0)
        memcpy(seed->path, path, sizeof path);
    return true;
}

/* pool_fd: consumed. */
static void keep_node(struct seed *seed, int pool_fd)
{
    if (check_planter(seed->planter_pid) != 0) {
        dragon_os_close(pool_fd);
        return;
    }
    if (seed->pool_fd >= 0)
        dragon_os_close(seed->pool_fd);
    seed->pool_fd = pool_fd;
}

/* Returns true in sprouts. */
static bool make_sprout(struct seed *seed, int order_fd, int *argc, char ***argv)
{
    int32_t seed_pid = dragon_os_pid(), pid;
    int r;

    reap(seed);
    r = check_planter(seed->planter_pid);
    if (r == 0)
        r = dragon_os_fork(&pid);
    if (r == 0 && pid == 0) {
        r = sprout(seed_pid, seed->planter_pid, order_fd, argc, argv);
        if (r == 0)
            return true;
        dragon_os_report(DRAGON_SEED_SPROUT_FD, -r);
        _exit(1);
    }
    if (r < 0)
        dragon_os_report(order_fd, -r);
    else
        seed->last_pid = pid;
    dragon_os_close(order_fd);
    return false;
}

/* Returns in sprouts. In the seed never: it ends when the planter does. */
static void tend(struct seed *seed, int *argc, char ***argv)
{
    char word[WORD_BYTES];
    int fd;

    for (;;) {
        if (!receive_word(seed, word, &fd))
            end_seed(seed);
        if (fd >= 0 && memcmp(word, NODE, WORD_BYTES) == 0) {
            keep_node(seed, fd);
        } else if (fd >= 0) {
            if (make_sprout(seed, fd, argc, argv))
                return;
        } else if (memcmp(word, OVER, WORD_BYTES) == 0) {
            seed->is_over = true;
        } else if (memcmp(word, KEEP, WORD_BYTES) == 0 && !receive_path(seed)) {
            end_seed(seed);
        }
    }
}

/* It ends with the planter: it waits for that itself or, if it cannot, the kernel sees to it. */
static void become_seed(struct seed *seed)
{
    dragon_os_block_signals();
    signal(SIGCHLD, SIG_DFL); /* the planter's own parent may have left it ignored */
    dragon_os_leave_group();
    dragon_os_forget_files(seed->socket);
    if (dragon_os_pidfd_open(seed->planter_pid, &seed->planter_pidfd) < 0)
        seed->planter_pidfd = -1;
    if (seed->planter_pidfd < 0 && dragon_os_die_with_parent(seed->planter_pid) < 0)
        _exit(0);
    if (getppid() != seed->planter_pid) /* before the descriptor was open: it may be another's */
        _exit(0);
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
        /* The socket may be one of the standard descriptors, which the planter need not have. */
        struct seed seed = {
            .socket = dragon_os_move_high(fds[1]),
            .planter_pid = planter_pid,
            .pool_fd = -1,
        };

        become_seed(&seed);
        tend(&seed, argc, argv);
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

bool dragon_seed_is_like_us(void)
{
    struct dragon_os_rights rights;

    return dragon_os_rights(&rights) < 0 ||
           dragon_os_check_rights(planted_pid, &rights) != DRAGON_OS_OTHER_RIGHTS;
}
