/* Keeps a copy of a folder at each operation on a file in it: what a process that is killed there
   leaves. Of a write, half of the bytes are written before. Loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[PATH_MAX], command[3 * PATH_MAX];
static long every, first, done;
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

/* Begin to count; after 0 operations none is kept, otherwise each n-th from operation `from` on,
   counted from 0. The shell command that keeps a copy gets the operation's number as an argument. */
void crash_watch(const char *folder, const char *keep, long n, long from) {
    strncpy(root, folder, sizeof root - 1);
    strncpy(command, keep, sizeof command - 1);
    done = 0;
    every = n;
    first = from;
}

long crash_count(void) { return done; }

static int below(const char *path) {
    size_t n = strlen(root);
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static int at_below(int fd, const char *path) {
    char here[PATH_MAX];
    if (path[0] == '/') return below(path);
    if (fd != AT_FDCWD) return fd_below(fd);
    return getcwd(here, sizeof here) && below(here);
}

static void keep(void) {
    char line[4 * PATH_MAX];
    pthread_mutex_lock(&one);
    if (done++ % every == first) {
        snprintf(line, sizeof line, "%s %ld", command, done);
        if (system(line)) abort();
    }
    pthread_mutex_unlock(&one);
}

static void point(int counts) {
    if (counts) keep();
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list list;                                                          \
        va_start(list, flags);                                                 \
        int mode = va_arg(list, int);                                          \
        va_end(list);                                                          \
        if (every && flags & (O_CREAT | O_TRUNC)) point(at_below(AT_FDCWD, path)); \
        return REAL(int, name, const char *, int, ...)(path, flags, mode);     \
    }
#define OPENAT(name)                                                           \
    int name(int fd, const char *path, int flags, ...) {                       \
        va_list list;                                                          \
        va_start(list, flags);                                                 \
        int mode = va_arg(list, int);                                          \
        va_end(list);                                                          \
        if (every && flags & (O_CREAT | O_TRUNC)) point(at_below(fd, path));   \
        return REAL(int, name, int, const char *, int, ...)(fd, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t n) {
    ssize_t (*real)(int, const void *, size_t) = REAL(ssize_t, write, int, const void *, size_t);
    if (!every || !n || !fd_below(fd)) return real(fd, bytes, n);
    ssize_t half = n < 2 ? 0 : real(fd, bytes, n / 2);
    if (half < 0) return half;
    keep();
    ssize_t rest = real(fd, (const char *)bytes + half, n - half);
    return rest < 0 ? rest : half + rest;
}

#define WITH(type, name, declared, given, counts)                              \
    type name declared {                                                       \
        if (every) point(counts);                                              \
        return ((type(*) declared)dlsym(RTLD_NEXT, #name)) given;              \
    }
#define PATH_(path) at_below(AT_FDCWD, path)
WITH(int, rename, (const char *a, const char *b), (a, b), PATH_(a) || PATH_(b))
WITH(int, renameat, (int f, const char *a, int g, const char *b), (f, a, g, b),
     at_below(f, a) || at_below(g, b))
WITH(int, link, (const char *a, const char *b), (a, b), PATH_(b))
WITH(int, linkat, (int f, const char *a, int g, const char *b, int x), (f, a, g, b, x), at_below(g, b))
WITH(int, symlink, (const char *a, const char *b), (a, b), PATH_(b))
WITH(int, unlink, (const char *a), (a), PATH_(a))
WITH(int, unlinkat, (int f, const char *a, int x), (f, a, x), at_below(f, a))
WITH(int, rmdir, (const char *a), (a), PATH_(a))
WITH(int, mkdir, (const char *a, mode_t m), (a, m), PATH_(a))
WITH(int, mkdirat, (int f, const char *a, mode_t m), (f, a, m), at_below(f, a))
WITH(int, chmod, (const char *a, mode_t m), (a, m), PATH_(a))
WITH(int, fchmod, (int f, mode_t m), (f, m), fd_below(f))
WITH(int, fchmodat, (int f, const char *a, mode_t m, int x), (f, a, m, x), at_below(f, a))
WITH(int, truncate, (const char *a, off_t n), (a, n), PATH_(a))
WITH(int, ftruncate, (int f, off_t n), (f, n), fd_below(f))
WITH(int, ftruncate64, (int f, off64_t n), (f, n), fd_below(f))
WITH(int, fsync, (int f), (f), fd_below(f))
WITH(int, fdatasync, (int f), (f), fd_below(f))
WITH(ssize_t, pwrite, (int f, const void *p, size_t n, off_t o), (f, p, n, o), fd_below(f))
WITH(ssize_t, pwrite64, (int f, const void *p, size_t n, off64_t o), (f, p, n, o), fd_below(f))
WITH(ssize_t, sendfile, (int f, int g, off_t *o, size_t n), (f, g, o, n), fd_below(f))
WITH(ssize_t, sendfile64, (int f, int g, off64_t *o, size_t n), (f, g, o, n), fd_below(f))
WITH(ssize_t, copy_file_range, (int f, off64_t *o, int g, off64_t *p, size_t n, unsigned x),
     (f, o, g, p, n, x), fd_below(g))
