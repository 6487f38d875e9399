#pragma once

/*
 * For tests with several processes: memory that forked children share, and
 * children that report by their exit status. A child must not use cr_assert: a
 * failing one hangs Criterion's runner.
 */

#include "base/deadline.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_SECOND DRAGON_NS_PER_S

/* The deadline of waits that are expected to end long before it. */
static inline int64_t test_soon(void)
{
    return dragon_deadline_after_ns(20 * TEST_SECOND);
}

/* Zeroed memory that stays shared across fork. */
static inline void *shared_page(size_t size_bytes)
{
    void *page = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        abort();
    return page;
}

/* Fork a child that runs run(argument) and ends with what it returns. It dies
 * with the test. */
static inline pid_t child_start(int (*run)(void *argument), void *argument)
{
    pid_t pid = fork();

    if (pid < 0)
        abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(run(argument));
    }
    return pid;
}

/* Wait for a child: its exit status, or 256 + the signal that killed it. */
static inline int child_result(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        abort();
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    return child_result(pid);
}

/* Poll a condition that another process or thread brings about; false when it
 * has not come within 20 s. */
static inline bool becomes_true(bool (*condition)(void *argument), void *argument)
{
    int64_t deadline_ns = test_soon();

    while (!condition(argument)) {
        if (dragon_deadline_passed(deadline_ns))
            return false;
        usleep(200);
    }
    return true;
}
