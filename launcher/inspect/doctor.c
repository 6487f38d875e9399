/*
 * Every check does what the runtime will do, in small, instead of asking for versions: a kernel may
 * be new enough and a container still refuse the call.
 */

#include "inspect/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "allocator.h"
#include "inspect/start_checks.h"
#include "interpreter.h"
#include "self.h"

enum need {
    TO_RUN,  /* nothing goes without it */
    TO_FORK, /* without it children are executed, which takes ten times longer */
    TO_BE_FAST,
};

struct check {
    const char *name;
    int (*run)(void); /* 0, or -errno */
    enum need need;
    const char *advice;
};

static int check_stdlib(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/os.py", dragon_interpreter_stdlib());
    return access(path, R_OK) == 0 ? 0 : -errno;
}

/* A pool: a memory file that can grow and be mapped. */
static int check_memfd(void)
{
    const size_t size_bytes = 65536;
    int fd = memfd_create("dragon-doctor", MFD_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int r = posix_fallocate(fd, 0, (off_t)size_bytes);
    void *map = MAP_FAILED;
    if (r == 0) {
        map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        r = map == MAP_FAILED ? errno : 0;
    }
    if (map != MAP_FAILED) {
        munmap(map, size_bytes);
    }
    close(fd);
    return -r;
}

static int check_pidfd(void)
{
    long fd = syscall(SYS_pidfd_open, getpid(), 0);
    if (fd < 0) {
        return -errno;
    }
    close((int)fd);
    return 0;
}

static int make_robust_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    int r = pthread_mutexattr_init(&attributes);
    if (r) {
        return r;
    }
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    r = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return r;
}

/* Let a child die holding the lock: the parent must be told so. */
static int lose_owner(pthread_mutex_t *mutex)
{
    pid_t child = fork();
    if (child < 0) {
        return errno;
    }
    if (child == 0) {
        _exit(pthread_mutex_lock(mutex));
    }
    if (waitpid(child, NULL, 0) < 0) {
        return errno;
    }
    int r = pthread_mutex_trylock(mutex);
    return r == EOWNERDEAD ? 0 : r ? r : ENOTSUP;
}

static int check_robust_mutex(void)
{
    pthread_mutex_t *mutex =
        mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mutex == MAP_FAILED) {
        return -errno;
    }
    int r = make_robust_mutex(mutex);
    if (r == 0) {
        r = lose_owner(mutex);
    }
    munmap(mutex, sizeof *mutex);
    return -r;
}

static const struct check checks[] = {
    {"standard library", check_stdlib, TO_RUN, "install the Python that dragon was built with"},
    {"memfd", check_memfd, TO_RUN, "allow memfd_create and fallocate in this container"},
    {"pidfd", check_pidfd, TO_RUN, "allow pidfd_open in this container; needs Linux 5.3"},
    {"robust mutex", check_robust_mutex, TO_RUN, "allow set_robust_list in this container"},
    {"hidden child", dragon_check_hidden_child, TO_FORK,
     "allow clone without an exit signal in this container"},
    {"passing of files", dragon_check_descriptor_passing, TO_FORK,
     "allow sendmsg with SCM_RIGHTS in this container"},
    {"adoption", dragon_check_adoption, TO_FORK,
     "allow clone with CLONE_VM and prctl with PR_SET_CHILD_SUBREAPER in this container"},
    {"close_range", dragon_check_close_range, TO_BE_FAST,
     "allow close_range in this container; needs Linux 5.9"},
};

#define N_CHECKS (sizeof checks / sizeof checks[0])

static void print_check(const struct check *check, int r)
{
    if (r == 0) {
        printf("%-18s works\n", check->name);
    } else {
        printf("%-18s FAILS: %s; %s\n", check->name, strerror(-r), check->advice);
    }
}

/* How children are made here, and why so: unable is what they cannot be forked without. */
static void print_start(const struct check *unable)
{
    if (unable) {
        printf("%-18s exec of dragon, because '%s' fails\n", "children start by", unable->name);
    } else {
        printf("%-18s fork, from a seed and a fork server\n", "children start by");
    }
}

/* Whether a program can run here. */
static bool run_checks(void)
{
    bool can_run = true;
    const struct check *unable = NULL;
    for (const struct check *check = checks; check < checks + N_CHECKS; check++) {
        int r = check->run();
        print_check(check, r);
        if (r < 0 && check->need == TO_RUN) {
            can_run = false;
        }
        if (r < 0 && check->need == TO_FORK && !unable) {
            unable = check;
        }
    }
    print_start(unable);
    return can_run;
}

static void print_build(const char *argv0)
{
    struct dragon_self self;
    dragon_self_locate(&self, argv0);
    printf("%-18s %s\n", "dragon", DRAGON_VERSION);
    printf("%-18s %s\n", "executable", self.path);
    printf("%-18s %s\n", "python", dragon_interpreter_version());
    printf("%-18s %s\n", "python library", DRAGON_PYTHON_LIBRARY);
    printf("%-18s %s\n", "prefix", DRAGON_PYTHON_PREFIX);
    if (self.is_in_venv || self.venv_python[0]) {
        printf("%-18s %s\n", "environment", self.is_in_venv ? self.path : self.venv_python);
    }
    printf("%-18s %s\n", "allocator", dragon_allocator_description());
}

static void print_cpus(void)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        printf("%-18s %ld online, %d for this process\n", "cpus", online, CPU_COUNT(&allowed));
    } else {
        printf("%-18s %ld online, affinity unknown\n", "cpus", online);
    }
}

int dragon_doctor_run(int argc, char **argv)
{
    if (argc > 2) {
        fprintf(stderr, "dragon doctor: takes no argument, got %s\n", argv[2]);
        return 2;
    }
    print_build(argv[0]);
    print_cpus();
    return run_checks() ? 0 : 1;
}
