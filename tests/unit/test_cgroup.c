#include "os/cgroup.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder with the files of a system as a process in a group sees it. */
static char root[] = "/tmp/dragon-test-cgroup-XXXXXX";

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void make_root(void)
{
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(cgroup, .init = make_root, .fini = remove_root, .timeout = 30);

/* Write a file, and the folders above it. */
static void put(const char *name, const char *text)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *end = path + strlen(root) + 1; (end = strchr(end, '/')); *end++ = '/') {
        *end = '\0';
        mkdir(path, 0700);
    }
    file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

#define UNIFIED "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define HYBRID                                                                                     \
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"                                   \
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"                                  \
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:12 master:3 - cgroup cgroup rw,memory\n"         \
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

Test(cgroup, a_group_of_version_2_limits)
{
    put("/proc/self/cgroup", "0::/user.slice/job\n");
    put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" UNIFIED);
    put("/sys/fs/cgroup/user.slice/job/memory.max", "268435456\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 268435456);
}

Test(cgroup, the_least_limit_of_the_groups_around_counts)
{
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", UNIFIED);
    put("/sys/fs/cgroup/a/memory.max", "3000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "1000\n");
    put("/sys/fs/cgroup/a/b/c/memory.max", "2000\n");
    put("/sys/fs/cgroup/a/other/memory.max", "5\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 1000);
}

Test(cgroup, a_group_of_version_1_limits_beside_version_2)
{
    put("/proc/self/cgroup", "9:name=systemd:/\n4:hugetlb,memory:/job/1\n1:cpu:/other\n0::/\n");
    put("/proc/self/mountinfo", HYBRID);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "70000\n");
    put("/sys/fs/cgroup/memory/job/1/memory.limit_in_bytes", "80000\n");
    put("/sys/fs/cgroup/memory/other/memory.limit_in_bytes", "5\n");
    put("/sys/fs/cgroup/cpu/other/memory.limit_in_bytes", "5\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 70000);
}

Test(cgroup, both_versions_limit_at_once)
{
    put("/proc/self/cgroup", "4:memory:/job\n0::/slice\n");
    put("/proc/self/mountinfo", HYBRID);
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "70000\n");
    put("/sys/fs/cgroup/unified/slice/memory.max", "60000\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 60000);
}

Test(cgroup, a_container_with_its_own_view_sees_its_limit_at_the_mount)
{
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", UNIFIED);
    put("/sys/fs/cgroup/memory.max", "1000\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 1000);
}

Test(cgroup, a_container_with_the_view_of_the_host_finds_its_group_below_the_mount)
{
    put("/proc/self/cgroup", "4:memory:/docker/12ab/job\n");
    put("/proc/self/mountinfo",
        "35 31 0:32 /docker/12ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 1000);
}

Test(cgroup, what_is_mounted_limits_where_the_own_group_cannot_be_seen)
{
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/proc/self/mountinfo", "35 31 0:32 /docker/12ab /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/memory.max", "1000\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), 1000);
}

Test(cgroup, what_is_no_number_limits_nothing)
{
    static const char *const texts[] = {"max\n",        "",       "\n",  "-1\n",
                                        "12 monkeys\n", "0x10\n", " 5\n"};

    put("/proc/self/cgroup", "0::/job\n");
    put("/proc/self/mountinfo", UNIFIED);
    cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX, "no file");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put("/sys/fs/cgroup/job/memory.max", texts[i]);
        cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX, "'%s'", texts[i]);
    }
}

Test(cgroup, a_system_without_groups_limits_nothing)
{
    cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX);
    put("/proc/self/mountinfo", HYBRID);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
    cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX, "the process is in none");
}

Test(cgroup, lines_that_make_no_sense_are_passed_over)
{
    static const char *const noise[] = {
        "", "\n", "0\n", "0:\n", "0::\n", "0::relative\n", "::\n", "4:memory\n"};
    char *long_line = calloc(1, 100000);

    cr_assert_not_null(long_line);
    memset(long_line, 'x', 99998);
    long_line[99998] = '\n';
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i++) {
        put("/proc/self/cgroup", noise[i]);
        put("/proc/self/mountinfo", UNIFIED HYBRID);
        cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX);
    }
    memcpy(long_line + 99999 - sizeof UNIFIED, UNIFIED, sizeof UNIFIED - 1);
    put("/proc/self/cgroup", "0::/job\n");
    put("/sys/fs/cgroup/job/memory.max", "1000\n");
    put("/proc/self/mountinfo", long_line);
    cr_assert_eq(dragon_cgroup_memory_limit(root), UINT64_MAX, "the end of a line is no line");
    memcpy(long_line + 99999 - sizeof UNIFIED, "\n" UNIFIED, sizeof UNIFIED);
    put("/proc/self/mountinfo", long_line);
    cr_assert_eq(dragon_cgroup_memory_limit(root), 1000);
    free(long_line);
}

Test(cgroup, a_quota_of_version_2_is_rounded_up_to_whole_processors)
{
    static const struct {
        const char *text;
        uint64_t limit;
    } cases[] = {
        {"200000 100000\n", 2},      {"200001 100000\n", 3},     {"150000 100000\n", 2},
        {"1000 100000\n", 1}, /* a hundredth of one, and no less than one */
        {"0 100000\n", 1},           {"25000 10000\n", 3},       {"max 100000\n", UINT64_MAX},
        {"200000\n", UINT64_MAX},    {"200000 0\n", UINT64_MAX}, {"200000 many\n", UINT64_MAX},
        {"-1 100000\n", UINT64_MAX}, {"", UINT64_MAX},
    };

    put("/proc/self/cgroup", "0::/job\n");
    put("/proc/self/mountinfo", UNIFIED);
    cr_assert_eq(dragon_cgroup_cpu_limit(root), UINT64_MAX, "no file");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("/sys/fs/cgroup/job/cpu.max", cases[i].text);
        cr_assert_eq(dragon_cgroup_cpu_limit(root), cases[i].limit, "'%s'", cases[i].text);
    }
}

Test(cgroup, the_least_quota_of_the_groups_around_counts)
{
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", UNIFIED);
    put("/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n");
    put("/sys/fs/cgroup/a/other/cpu.max", "100000 100000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), 3);
    put("/sys/fs/cgroup/cpu.max", "100000 50000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), 2, "where it is mounted");
}

Test(cgroup, a_quota_of_version_1_counts_beside_version_2)
{
    put("/proc/self/cgroup", "4:memory:/other\n3:cpu,cpuacct:/job/1\n0::/slice\n");
    put("/proc/self/mountinfo", HYBRID);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu/job/1/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/job/1/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu/other/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpu/other/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), UINT64_MAX, "-1 is no limit");
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "450000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), UINT64_MAX, "a quota without a period");
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), 5);
    put("/sys/fs/cgroup/unified/slice/cpu.max", "100000 100000\n");
    cr_assert_eq(dragon_cgroup_cpu_limit(root), 1);
}

Test(cgroup, this_system_can_be_asked)
{
    cr_assert_gt(dragon_cgroup_memory_limit(""), 0);
    cr_assert_gt(dragon_cgroup_cpu_limit(""), 0);
}
