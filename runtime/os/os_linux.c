#include "os/os.h"

#include "base/atomic.h"
#include "base/deadline.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define THREAD_STACK_BYTES (128 * 1024)

/* High, but below 64: a larger table of descriptors costs a process that has
 * threads a grace period of the kernel (7 ms measured). */
#define FIRST_HIGH_FD 56

/* ---- memory ---- */

static int resize_new_file(int fd, uint64_t size_bytes)
{
    if (ftruncate(fd, (off_t)size_bytes) < 0)
        return dragon_error_origin(-errno);
    return 0;
}

int dragon_os_memfd(const char *name, uint64_t size_bytes, int *fd_out)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r;

    if (fd < 0)
        return dragon_error_origin(-errno);
    r = resize_new_file(fd, size_bytes);
    if (r < 0)
        goto close_fd;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        r = dragon_error_origin(-errno);
        goto close_fd;
    }
    *fd_out = fd;
    return 0;

close_fd:
    close(fd);
    return r;
}

int dragon_os_shm_open(const char *name, bool create, uint64_t size_bytes, int *fd_out)
{
    int fd = shm_open(name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    int r;

    if (fd < 0)
        return dragon_error_origin(-errno);
    if (create) {
        r = resize_new_file(fd, size_bytes);
        if (r < 0) {
            close(fd);
            shm_unlink(name);
            return r;
        }
    }
    *fd_out = fd;
    return 0;
}

int dragon_os_shm_unlink(const char *name)
{
    return shm_unlink(name) < 0 ? dragon_error_origin(-errno) : 0;
}

int dragon_os_file_of(int fd, struct dragon_os_file *file_out)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return dragon_error_origin(-errno);
    if (!S_ISREG(st.st_mode))
        return dragon_error_origin(-EBADMSG);
    *file_out =
        (struct dragon_os_file){(uint64_t)st.st_size, st.st_dev, st.st_ino, st.st_uid == geteuid()};
    return 0;
}

int dragon_os_map(int fd, uint64_t size_bytes, void **base_out)
{
    void *base;

    base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return dragon_error_origin(-errno);
    *base_out = base;
    return 0;
}

int dragon_os_reserve(uint64_t size_bytes, void **base_out)
{
    void *base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return dragon_error_origin(-errno);
    *base_out = base;
    return 0;
}

int dragon_os_reserve_unforked(uint64_t size_bytes, void **base_out)
{
    void *base = NULL;
    int r = dragon_os_reserve(size_bytes, &base);

    if (r < 0)
        return dragon_error_trace(r);
    if (madvise(base, size_bytes, MADV_WIPEONFORK) < 0) {
        r = dragon_error_origin(-errno);
        munmap(base, size_bytes);
        return r;
    }
    *base_out = base;
    return 0;
}

void dragon_os_unmap(void *base, uint64_t size_bytes)
{
    munmap(base, size_bytes);
}

int dragon_os_commit(int fd, uint64_t offset, uint64_t size_bytes)
{
    int r;

    do {
        r = fallocate(fd, 0, (off_t)offset, (off_t)size_bytes);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? dragon_error_origin(-errno) : 0;
}

int dragon_os_decommit(int fd, uint64_t offset, uint64_t size_bytes)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int r;

    do {
        r = fallocate(fd, mode, (off_t)offset, (off_t)size_bytes);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? dragon_error_origin(-errno) : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t resource_limit(int resource)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

uint64_t dragon_os_memory_limit(void)
{
    struct sysinfo info;
    uint64_t limit = resource_limit(RLIMIT_AS) / 4; /* the rest is the program's */

    if (sysinfo(&info) == 0)
        limit = smaller(limit, (uint64_t)info.totalram * info.mem_unit);
    return smaller(limit, resource_limit(RLIMIT_FSIZE));
}

/* ---- signs of life ---- */

/* The lock belongs to an open file, and that lives as long as a mapping of it. A
 * mapping cannot be closed by number, and forks leave this one out. */
#define LIFE_BYTES 4096

static struct flock lock_of(uint64_t byte)
{
    return (struct flock){
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
}

/* The file of fd, opened another time: a lock is not shared with who has fd. */
static int open_again(int fd, int *fd_out)
{
    char path[32];
    int again;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    again = open(path, O_RDWR | O_CLOEXEC);
    if (again < 0)
        return dragon_error_origin(-errno);
    *fd_out = again;
    return 0;
}

int dragon_os_life_begin(int fd, uint64_t byte, void **life_out)
{
    struct flock lock = lock_of(byte);
    int again = -1, r = open_again(fd, &again);
    void *life;

    if (r < 0)
        return dragon_error_trace(r);
    life = mmap(NULL, LIFE_BYTES, PROT_NONE, MAP_SHARED, again, 0);
    if (life == MAP_FAILED) {
        r = dragon_error_origin(-errno);
        goto close_again;
    }
    if (madvise(life, LIFE_BYTES, MADV_DONTFORK) < 0 || fcntl(again, F_OFD_SETLK, &lock) < 0) {
        r = dragon_error_origin(-errno);
        munmap(life, LIFE_BYTES);
        goto close_again;
    }
    *life_out = life;

close_again:
    close(again);
    return r;
}

void dragon_os_life_end(void *life)
{
    munmap(life, LIFE_BYTES);
}

bool dragon_os_life_goes_on(int fd, uint64_t byte)
{
    struct flock lock = lock_of(byte);

    return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

/* ---- sleeping ---- */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout,
                  uint32_t bits)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, bits);
}

static const struct timespec *timespec_of(int64_t deadline_ns, struct timespec *out)
{
    if (deadline_ns == DRAGON_FOREVER)
        return NULL;
    out->tv_sec = deadline_ns / DRAGON_NS_PER_S;
    out->tv_nsec = deadline_ns % DRAGON_NS_PER_S;
    return out;
}

/* What errno says after a sleep that nobody ended. */
static int futex_outcome(void)
{
    switch (errno) {
    case ETIMEDOUT:
        return DRAGON_OS_FUTEX_TIMEOUT;
    case EINTR:
        return DRAGON_OS_FUTEX_INTERRUPTED;
    case EAGAIN:
        return 0;
    default:
        return dragon_error_origin(-errno);
    }
}

int dragon_os_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline_ns)
{
    struct timespec deadline;
    const struct timespec *timeout = timespec_of(deadline_ns, &deadline);

    /* The bitset form takes an absolute time on CLOCK_MONOTONIC. */
    if (futex(word, FUTEX_WAIT_BITSET, value, timeout, FUTEX_BITSET_MATCH_ANY) == 0)
        return 0;
    return futex_outcome();
}

/* As the kernel has it; linux/futex.h knows it since 5.16. */
struct waitv {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};

#define WAITV_32_BITS 2

int dragon_os_futex_wait_many(const struct dragon_os_futex *futexes, unsigned n,
                              int64_t deadline_ns)
{
    struct waitv waiters[DRAGON_OS_FUTEX_MANY];
    struct timespec deadline;
    const struct timespec *timeout = timespec_of(deadline_ns, &deadline);

    for (unsigned i = 0; i < n; i++)
        waiters[i] = (struct waitv){futexes[i].value, (uintptr_t)futexes[i].word, WAITV_32_BITS, 0};
    if (syscall(SYS_futex_waitv, waiters, n, 0, timeout, CLOCK_MONOTONIC) >= 0)
        return 0;
    if (errno == EPERM)
        return -ENOSYS;
    return errno == ENOSYS ? -ENOSYS : futex_outcome();
}

int dragon_os_futex_wake(_Atomic uint32_t *word, int n)
{
    long woken = futex(word, FUTEX_WAKE, (uint32_t)n, NULL, 0);

    return woken < 0 ? 0 : (int)woken;
}

void dragon_os_yield(void)
{
    sched_yield();
}

/* ---- processes and threads ---- */

int32_t dragon_os_pid(void)
{
    return getpid();
}

int32_t dragon_os_thread_id(void)
{
    return (int32_t)syscall(SYS_gettid);
}

bool dragon_os_thread_exists(int32_t thread_id)
{
    return syscall(SYS_tgkill, getpid(), thread_id, 0) == 0;
}

/* /proc/PID/stat. */
static int read_stat(int32_t pid, char *text, size_t size)
{
    char path[32];
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dragon_error_origin(errno == ENOENT ? -ESRCH : -errno);
    n = read(fd, text, size - 1);
    close(fd);
    if (n <= 0)
        return dragon_error_origin(-ESRCH);
    text[n] = '\0';
    return 0;
}

/* The space before a field, from 3 on; NULL: there is none. Field 2 is the program's name in
 * parentheses and may itself hold spaces and parentheses, so counting starts at the last
 * ')'. */
static const char *field_of_stat(const char *text, int number)
{
    const char *at = strrchr(text, ')');

    for (int field = 2; at && field < number; field++)
        at = strchr(at + 1, ' ');
    return at;
}

int dragon_os_start_time(int32_t pid, uint64_t *ticks_out)
{
    const char *at;
    char text[1024];
    int r = read_stat(pid, text, sizeof text);

    if (r < 0)
        return dragon_error_trace(r);
    at = field_of_stat(text, 22);
    if (!at)
        return dragon_error_origin(-EPROTO);
    *ticks_out = strtoull(at, NULL, 10);
    return 0;
}

bool dragon_os_is_alive(int32_t pid)
{
    return kill(pid, 0) == 0 || errno != ESRCH;
}

bool dragon_os_has_children(void)
{
    siginfo_t ended;

    return waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

int dragon_os_pidfd_open(int32_t pid, int *fd_out)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);

    if (fd < 0)
        return dragon_error_origin(-errno);
    *fd_out = (int)fd;
    return 0;
}

_Noreturn void dragon_os_kill_self(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* A child of this process, while nobody has reaped it. */
static bool status_of_child(int pidfd, uint32_t *status_out)
{
    siginfo_t info = {.si_pid = 0};

    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ||
        info.si_pid == 0)
        return false;
    *status_out = info.si_code == CLD_EXITED ? (uint32_t)(info.si_status & 0xff) << 8
                                             : (uint32_t)(info.si_status & 0x7f);
    return true;
}

/* Any process, while it is a zombie; the number may be another's after that. */
static bool status_of_zombie(int pidfd, int32_t pid, uint32_t *status_out)
{
    char text[1024];
    const char *state, *code;

    if (read_stat(pid, text, sizeof text) < 0)
        return false;
    state = field_of_stat(text, 3);
    code = field_of_stat(text, 52);
    if (!state || !code || state[1] != 'Z' || syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0)
        return false;
    *status_out = (uint32_t)strtoul(code, NULL, 10) & 0xffff;
    return true;
}

/* Source: include/uapi/linux/pidfd.h of Linux 6.15. */
struct pidfd_info {
    uint64_t mask;
    uint64_t cgroup_id;
    uint32_t ids[11];
    int32_t exit_code;
};
#define PIDFD_GET_INFO_REQUEST _IOWR(0xff, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT_MASK (UINT64_C(1) << 3)

_Static_assert(sizeof(struct pidfd_info) == 64, "the kernel's first version of it");

/* Any process, after it was reaped. */
static bool status_of_reaped(int pidfd, uint32_t *status_out)
{
    struct pidfd_info info = {.mask = PIDFD_INFO_EXIT_MASK};

    if (ioctl(pidfd, PIDFD_GET_INFO_REQUEST, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT_MASK))
        return false;
    *status_out = (uint32_t)info.exit_code & 0xffff;
    return true;
}

bool dragon_os_wait_status(int pidfd, int32_t pid, uint32_t *status_out)
{
    return status_of_child(pidfd, status_out) || status_of_zombie(pidfd, pid, status_out) ||
           status_of_reaped(pidfd, status_out);
}

/* What the descriptor is of cannot become another process after the look at its start time. */
void dragon_os_kill_process_of_session(int32_t pid, uint64_t start_ticks)
{
    uint64_t ticks = 0;
    int pidfd = -1;

    if (pid <= 0 || dragon_os_pidfd_open(pid, &pidfd) < 0)
        return;
    if (getsid(pid) == getsid(0) && dragon_os_start_time(pid, &ticks) == 0 && ticks == start_ticks)
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    close(pidfd);
}

bool dragon_os_pidfd_ended(int pidfd)
{
    /* A pidfd is readable exactly when its process has ended. */
    struct pollfd item = {.fd = pidfd, .events = POLLIN};

    return poll(&item, 1, 0) == 1;
}

int dragon_os_thread_start(void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int r;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    /* A thread inherits the mask of its maker: block around the start, or a
     * signal could arrive in it before it blocks them itself. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r == 0 ? 0 : dragon_error_origin(-r);
}

void dragon_os_thread_name(const char *name)
{
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

int dragon_os_cpu_count(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

/* ---- file descriptors ---- */

int dragon_os_eventfd(int *fd_out)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0)
        return dragon_error_origin(-errno);
    *fd_out = fd;
    return 0;
}

void dragon_os_eventfd_raise(int fd)
{
    /* Fails only when the counter is full: readable already. */
    (void)!eventfd_write(fd, 1);
}

void dragon_os_eventfd_lower(int fd)
{
    eventfd_t value;

    (void)!eventfd_read(fd, &value);
}

int dragon_os_epoll_create(int *fd_out)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0)
        return dragon_error_origin(-errno);
    *fd_out = fd;
    return 0;
}

int dragon_os_epoll_add(int epoll_fd, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return dragon_error_origin(-errno);
    return 0;
}

void dragon_os_epoll_remove(int epoll_fd, int fd)
{
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static int milliseconds_until(int64_t deadline_ns)
{
    int64_t remaining_ns = dragon_deadline_remaining_ns(deadline_ns);

    if (remaining_ns == DRAGON_FOREVER)
        return -1;
    if (remaining_ns > INT_MAX * INT64_C(1000000))
        return INT_MAX;
    return (int)((remaining_ns + 999999) / 1000000);
}

int dragon_os_epoll_wait(int epoll_fd, uint64_t *tags_out, int max, int64_t deadline_ns)
{
    struct epoll_event events[16];
    int n;

    if (max > 16)
        max = 16;
    do {
        n = epoll_wait(epoll_fd, events, max, milliseconds_until(deadline_ns));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return dragon_error_origin(-errno);
    for (int i = 0; i < n; i++)
        tags_out[i] = events[i].data.u64;
    return n;
}

int dragon_os_move_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_HIGH_FD);

    if (high < 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
    close(fd);
    return high;
}

void dragon_os_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *place)
{
    (void)st;
    (void)kind;
    (void)place;
    (void)remove(path);
    return 0;
}

void dragon_os_remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

int dragon_os_random(void *bytes_out, size_t size_bytes)
{
    ssize_t n;

    do {
        n = getrandom(bytes_out, size_bytes, 0);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)size_bytes ? 0 : dragon_error_origin(n < 0 ? -errno : -EIO);
}
