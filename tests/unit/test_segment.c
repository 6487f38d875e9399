#include "memory/segment.h"
#include "os/os.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_BYTES 65536
#define NOBODY 65534

static char name[64];

static void make_name(void)
{
    snprintf(name, sizeof name, "/dragon-test-segment-%d", getpid());
}

static void remove_name(void)
{
    shm_unlink(name);
}

TestSuite(segment, .timeout = 30, .init = make_name, .fini = remove_name);

static bool is_closed(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

Test(segment, a_new_one_is_zero_and_as_large_as_asked)
{
    struct dragon_segment segment;

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", SIZE_BYTES), 0);
    cr_assert_eq(segment.size_bytes, SIZE_BYTES);
    for (int i = 0; i < SIZE_BYTES; i++)
        cr_assert_eq(segment.base[i], 0);
    dragon_segment_close(&segment);
}

Test(segment, is_not_inherited_by_programs)
{
    struct dragon_segment segment;

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", SIZE_BYTES), 0);
    cr_assert(fcntl(segment.fd, F_GETFD) & FD_CLOEXEC);
    dragon_segment_close(&segment);
}

Test(segment, an_anonymous_one_cannot_shrink_under_its_users)
{
    struct dragon_segment segment;

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", SIZE_BYTES), 0);
    cr_assert_lt(ftruncate(segment.fd, 4096), 0);
    cr_assert_eq(errno, EPERM);
    dragon_segment_close(&segment);
}

Test(segment, two_mappings_of_one_show_the_same_bytes)
{
    struct dragon_segment a, b;

    cr_assert_eq(dragon_segment_create_anonymous(&a, "test", SIZE_BYTES), 0);
    cr_assert_eq(dragon_segment_open_fd(&b, dup(a.fd)), 0);
    a.base[SIZE_BYTES - 1] = 42;
    cr_assert_eq(b.size_bytes, SIZE_BYTES);
    cr_assert_neq(a.base, b.base);
    cr_assert_eq(b.base[SIZE_BYTES - 1], 42);
    dragon_segment_close(&a);
    dragon_segment_close(&b);
}

Test(segment, closing_leaves_it_to_others)
{
    struct dragon_segment a, b;
    int fd;

    cr_assert_eq(dragon_segment_create_anonymous(&a, "test", SIZE_BYTES), 0);
    cr_assert_eq(dragon_segment_open_fd(&b, dup(a.fd)), 0);
    fd = a.fd;
    a.base[0] = 7;
    dragon_segment_close(&a);
    cr_assert(is_closed(fd));
    cr_assert_eq(b.base[0], 7);
    dragon_segment_close(&b);
}

Test(segment, a_file_shorter_than_a_page_is_refused_and_closed)
{
    struct dragon_segment segment;
    int fd = memfd_create("test", 0);

    cr_assert_eq(ftruncate(fd, 4095), 0);
    cr_assert_eq(dragon_segment_open_fd(&segment, fd), -EBADMSG);
    cr_assert(is_closed(fd));
}

Test(segment, what_is_no_file_is_refused_and_closed)
{
    struct dragon_segment segment;
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(dragon_segment_open_fd(&segment, ends[0]), -EBADMSG);
    cr_assert(is_closed(ends[0]));
}

Test(segment, a_descriptor_that_is_not_open_is_an_error)
{
    struct dragon_segment segment;

    cr_assert_eq(dragon_segment_open_fd(&segment, 1000), -EBADF);
}

Test(segment, a_named_one_can_be_made_once)
{
    struct dragon_segment a, b;

    cr_assert_eq(dragon_segment_create_named(&a, name, SIZE_BYTES), 0);
    cr_assert_eq(dragon_segment_create_named(&b, name, SIZE_BYTES), -EEXIST);
    cr_assert_eq(dragon_segment_open_named(&b, name), 0, "the loser must not remove the name");
    dragon_segment_close(&a);
    dragon_segment_close(&b);
}

Test(segment, a_named_one_is_for_its_user_only)
{
    struct dragon_segment segment;
    struct stat st;

    umask(0);
    cr_assert_eq(dragon_segment_create_named(&segment, name, SIZE_BYTES), 0);
    cr_assert_eq(fstat(segment.fd, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    dragon_segment_close(&segment);
}

static struct dragon_segment kept;

static int use_as_nobody(void *argument)
{
    struct dragon_segment other;

    (void)argument;
    if (setuid(NOBODY) < 0)
        return 1;
    if (dragon_segment_open_fd(&other, dup(kept.fd)) != 0)
        return 2;
    return dragon_segment_commit(&kept, 0, 8192) == 0 ? 0 : 3;
}

static int open_name_of_nobody(void *argument)
{
    struct dragon_segment other;

    (void)argument;
    return dragon_segment_open_named(&other, name) == -EBADMSG ? 0 : 1;
}

Test(segment, a_name_that_another_user_has_taken_is_refused)
{
    char path[300];

    if (geteuid() != 0)
        cr_skip_test("only root can make another user's file");
    cr_assert_eq(dragon_segment_create_named(&kept, name, SIZE_BYTES), 0);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    cr_assert_eq(chown(path, NOBODY, NOBODY), 0);
    cr_assert_eq(chmod(path, 0666), 0);
    cr_assert_eq(child_result(child_start(open_name_of_nobody, NULL)), 0);
    dragon_segment_close(&kept);
}

Test(segment, a_process_that_becomes_another_user_keeps_what_it_has_open)
{
    if (geteuid() != 0)
        cr_skip_test("only root can become another user");
    cr_assert_eq(dragon_segment_create_anonymous(&kept, "test", 8192), 0);
    cr_assert_eq(child_result(child_start(use_as_nobody, NULL)), 0);
    dragon_segment_close(&kept);
}

Test(segment, a_name_that_does_not_exist_cannot_be_opened)
{
    struct dragon_segment segment;

    cr_assert_eq(dragon_segment_open_named(&segment, name), -ENOENT);
}

Test(segment, one_that_cannot_be_mapped_leaves_no_name_behind)
{
    struct dragon_segment segment;
    int r = dragon_segment_create_named(&segment, name, UINT64_C(1) << 60);

    cr_assert_lt(r, 0);
    cr_assert_eq(dragon_segment_open_named(&segment, name), -ENOENT);
}
