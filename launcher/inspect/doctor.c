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
#include "interpreter.h"
#include "self.h"

struct check {
    const char *name;
    int (*run)(void); /* 0, or -errno */
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
    {"standard library", check_stdlib, "install the Python that dragon was built with"},
    {"memfd", check_memfd, "allow memfd_create and fallocate in this container"},
    {"pidfd", check_pidfd, "allow pidfd_open in this container; needs Linux 5.3"},
    {"robust mutex", check_robust_mutex, "allow set_robust_list in this container"},
};

static bool run_checks(void)
{
    bool all_work = true;
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        int r = checks[i].run();
        if (r == 0) {
            printf("%-18s works\n", checks[i].name);
        } else {
            all_work = false;
            printf("%-18s FAILS: %s; %s\n", checks[i].name, strerror(-r), checks[i].advice);
        }
    }
    return all_work;
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
    printf("%-18s %s\n", "children start by", "exec of dragon");
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
