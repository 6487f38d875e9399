#include "base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

TestSuite(error, .timeout = 30);

/* As many frames as a path keeps. */
#define MAX_FRAMES 8

static int count_frames(const char *path)
{
    int n = path[0] != '\0';

    for (const char *at = path; (at = strstr(at, " < ")) != NULL; at += 3)
        n++;
    return n;
}

Test(error, recording_returns_the_error_unchanged)
{
    cr_assert_eq(dragon_error_origin(-ENOMEM), -ENOMEM);
    cr_assert_eq(dragon_error_trace(-ENOMEM), -ENOMEM);
}

Test(error, path_names_the_file_without_folders_and_the_line_of_the_origin)
{
    char expected[64], path[256];

    snprintf(expected, sizeof expected, "test_error.c:%d", __LINE__ + 1);
    (void)dragon_error_origin(-ENOENT);
    dragon_error_path(path, sizeof path);
    cr_assert_str_eq(path, expected);
}

Test(error, passing_on_adds_a_frame_behind_the_origin)
{
    char expected[64], path[256];
    int line = __LINE__ + 1;
    int r = dragon_error_origin(-ENOENT);

    r = dragon_error_trace(r);
    cr_assert_eq(r, -ENOENT);
    dragon_error_path(path, sizeof path);
    snprintf(expected, sizeof expected, "test_error.c:%d < test_error.c:%d", line, line + 2);
    cr_assert_str_eq(path, expected);
}

Test(error, success_and_outcomes_are_passed_on_unrecorded)
{
    char before[256], after[256];

    (void)dragon_error_origin(-ENOENT);
    dragon_error_path(before, sizeof before);
    cr_assert_eq(dragon_error_trace(0), 0);
    cr_assert_eq(dragon_error_trace(3), 3);
    dragon_error_path(after, sizeof after);
    cr_assert_str_eq(before, after);
}

Test(error, a_new_origin_starts_a_new_path)
{
    char path[256];

    (void)dragon_error_trace(dragon_error_origin(-ENOENT));
    (void)dragon_error_origin(-EINVAL);
    dragon_error_path(path, sizeof path);
    cr_assert_eq(count_frames(path), 1);
}

Test(error, a_long_path_keeps_its_origin)
{
    char expected[64], path[512];

    snprintf(expected, sizeof expected, "test_error.c:%d < ", __LINE__ + 1);
    (void)dragon_error_origin(-ENOENT);
    for (int i = 0; i < 3 * MAX_FRAMES; i++)
        (void)dragon_error_trace(-ENOENT);
    dragon_error_path(path, sizeof path);
    cr_assert_eq(strncmp(path, expected, strlen(expected)), 0, "%s", path);
    cr_assert_eq(count_frames(path), MAX_FRAMES);
}

Test(error, a_path_that_does_not_fit_is_cut_and_terminated)
{
    char full[256];

    (void)dragon_error_trace(dragon_error_origin(-ENOENT));
    dragon_error_path(full, sizeof full);
    for (size_t size = 1; size <= strlen(full) + 1; size++) {
        char path[256];

        memset(path, '#', sizeof path);
        dragon_error_path(path, size);
        cr_assert_eq(strlen(path), size - 1);
        cr_assert_eq(strncmp(path, full, size - 1), 0);
        cr_assert_eq(path[size], '#');
    }
}

Test(error, no_room_at_all_is_not_touched)
{
    char path[1] = {'#'};

    (void)dragon_error_origin(-ENOENT);
    dragon_error_path(path, 0);
    cr_assert_eq(path[0], '#');
}

static void *take_path(void *path)
{
    dragon_error_path(path, 256);
    return NULL;
}

Test(error, a_thread_sees_only_its_own_errors)
{
    char path[256] = "#";
    pthread_t thread;

    (void)dragon_error_origin(-ENOENT);
    pthread_create(&thread, NULL, take_path, path);
    pthread_join(thread, NULL);
    cr_assert_str_empty(path);
}
