/*
 * Storage that loses what was not synced: a library to preload into a process that will be killed.
 *
 * A killed process keeps all it wrote, because the page cache outlives it; a machine without power does not. This library
 * writes down, before each change of a regular file under DROPPER_DIR, what the change overwrites, and after each
 * successful sync, which changes it covers. Once the process is dead, the journal is read backwards (dropper.rs) and every
 * change that no sync covers is undone.
 *
 * Names are treated as durable (create, rename and unlink stay done without a sync of the folder); bytes and sizes are not.
 * A change made while a sync of the same file is under way is not covered by that sync: a sync counts from its start.
 * Not seen: writes through mmap, stdio (fopen), io_uring. None of them may carry data that has to survive.
 *
 *   DROPPER_DIR                folder whose files lose unsynced bytes, absolute, without symbolic links
 *   DROPPER_JOURNAL            the journal, made new, outside DROPPER_DIR
 *   DROPPER_NOSYNC=1           fsync and fdatasync answer 0 and do nothing
 *   DROPPER_NOSYNC_NAMES=END   the same, only for files whose name ends so
 *   DROPPER_SYNC_DELAY_MS=N    each sync takes N ms more
 *   DROPPER_FAIL_SYNC_AFTER=N  N syncs succeed, every later one fails with EIO
 *   DROPPER_ENOSPC_AFTER_BYTES=N  writes fail with ENOSPC once N bytes were written
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 65536
#define MAGIC 0x31505244u /* "DRP1" */

enum kind { CHANGE = 1, SYNCED = 2, GONE = 3 };

/* One journal record; `old_bytes` bytes follow it. dropper.rs reads the same layout. */
struct record {
    uint32_t magic;
    uint32_t kind;
    uint64_t inode;
    uint64_t offset;    /* CHANGE: where it begins */
    uint64_t length;    /* CHANGE: how many bytes it was to write */
    uint64_t old_size;  /* CHANGE: size of the file before it */
    uint64_t old_bytes; /* CHANGE: bytes at `offset` before it */
    uint64_t covers;    /* SYNCED: changes whose record begins before this journal position are on disk */
};

struct file {
    uint64_t inode;
    int descriptors;
    int gone;   /* unlinked: its inode number may come back as another file */
    int reader; /* descriptor to read old bytes with, or -1 */
    struct file *next;
};

struct slot {
    struct file *file;
    int flags;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct slot slots[FDS_MAX];
static struct file *files;
static char folder[PATH_MAX];
static int journal = -1;
static uint64_t journal_bytes, written_bytes, syncs;
static int nosync;
static const char *nosync_names;
static uint64_t delay_ms, fail_sync_after = UINT64_MAX, enospc_after_bytes = UINT64_MAX;

static void die(const char *why) {
    dprintf(2, "dropper: %s: %s\n", why, strerror(errno));
    _exit(99);
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void start(void) {
    const char *dir = getenv("DROPPER_DIR"), *path = getenv("DROPPER_JOURNAL");
    if (!dir || !path) return;
    snprintf(folder, sizeof folder, "%s/", dir);
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) die("the journal cannot be made");
    nosync = number("DROPPER_NOSYNC", 0) == 1;
    nosync_names = getenv("DROPPER_NOSYNC_NAMES");
    delay_ms = number("DROPPER_SYNC_DELAY_MS", 0);
    fail_sync_after = number("DROPPER_FAIL_SYNC_AFTER", UINT64_MAX);
    enospc_after_bytes = number("DROPPER_ENOSPC_AFTER_BYTES", UINT64_MAX);
}

__attribute__((constructor)) static void ready(void) { pthread_once(&once, start); }

static void enter(void) {
    ready();
    pthread_mutex_lock(&lock);
}

/* Leaves errno as the system call set it. */
static void leave(void) {
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static void append(const struct record *record, const void *old) {
    struct iovec parts[2] = {{(void *)record, sizeof *record}, {(void *)old, record->old_bytes}};
    ssize_t length = sizeof *record + record->old_bytes;
    if (syscall(SYS_writev, journal, parts, old ? 2 : 1) != length) die("the journal cannot be written");
    journal_bytes += length;
}

static void append_simple(enum kind kind, uint64_t inode, uint64_t covers) {
    struct record record = {.magic = MAGIC, .kind = kind, .inode = inode, .covers = covers};
    append(&record, NULL);
}

/* ---- which descriptors are files of the folder ---- */

static int is_tracked(int fd) {
    return fd >= 0 && fd < FDS_MAX && __atomic_load_n(&slots[fd].file, __ATOMIC_ACQUIRE) != NULL;
}

static void hold(int fd, struct file *file, int flags) {
    file->descriptors++;
    slots[fd].flags = flags;
    __atomic_store_n(&slots[fd].file, file, __ATOMIC_RELEASE);
}

static void release(int fd) {
    struct file *file = slots[fd].file;
    if (!file) return;
    __atomic_store_n(&slots[fd].file, NULL, __ATOMIC_RELEASE);
    if (--file->descriptors > 0) return;
    for (struct file **at = &files; *at; at = &(*at)->next)
        if (*at == file) { *at = file->next; break; }
    if (file->reader >= 0) syscall(SYS_close, file->reader);
    free(file);
}

static struct file *file_of(uint64_t inode) {
    for (struct file *file = files; file; file = file->next)
        if (file->inode == inode && !file->gone) return file;
    struct file *file = calloc(1, sizeof *file);
    if (!file) die("no memory");
    *file = (struct file){.inode = inode, .reader = -1, .next = files};
    return files = file;
}

/* Empty if the descriptor has no name. */
static void path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

static int in_folder(int fd) {
    char path[PATH_MAX];
    path_of(fd, path);
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int truncate_tracked(int fd, off_t length);

static int track(int fd, int flags) {
    struct stat stat;
    int kept = errno;
    if (fd < 0) return fd;
    int belongs = journal >= 0 && fd < FDS_MAX && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && in_folder(fd);
    if (belongs) {
        enter();
        release(fd);
        hold(fd, file_of(stat.st_ino), flags);
        leave();
    }
    if ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) {
        if (belongs && stat.st_size > 0) truncate_tracked(fd, 0);
        else if (!belongs) syscall(SYS_ftruncate, fd, 0);
    }
    errno = kept;
    return fd;
}

/* O_TRUNC is done by hand, after the descriptor is known, so that the old bytes are in the journal first. */
static int open_any(int at, const char *path, int flags, mode_t mode) {
    ready();
    return track(syscall(SYS_openat, at, path, journal >= 0 ? flags & ~O_TRUNC : flags, mode), flags);
}

static mode_t mode_of(int flags, va_list rest) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = mode_of(flags, rest);                          \
        va_end(rest);                                                \
        return open_any(AT_FDCWD, path, flags, mode);                \
    }
#define OPENAT(name)                                                 \
    int name(int at, const char *path, int flags, ...) {             \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = mode_of(flags, rest);                          \
        va_end(rest);                                                \
        return open_any(at, path, flags, mode);                      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (is_tracked(fd)) {
        enter();
        release(fd);
        leave();
    }
    return syscall(SYS_close, fd);
}

static int copy(int from, int to) {
    if (to < 0 || to >= FDS_MAX || from == to) return to;
    if (!is_tracked(from) && !is_tracked(to)) return to;
    enter();
    release(to);
    if (slots[from].file) hold(to, slots[from].file, slots[from].flags);
    leave();
    return to;
}

int dup(int fd) { return copy(fd, syscall(SYS_dup, fd)); }
int dup3(int fd, int to, int flags) { return copy(fd, syscall(SYS_dup3, fd, to, flags)); }
int dup2(int fd, int to) { return fd == to ? to : dup3(fd, to, 0); }

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    int result = syscall(SYS_fcntl, fd, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copy(fd, result) : result;
}
int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    return fcntl(fd, command, argument);
}

/* ---- changes: under the lock, first the journal, then the file, so that the journal's order is the true order ---- */

/* A descriptor of its own only where the caller's cannot read: closing one would drop the caller's fcntl locks. */
static int reader_of(int fd, struct slot *slot) {
    char link[64];
    if ((slot->flags & O_ACCMODE) == O_RDWR) return fd;
    if (slot->file->reader < 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        slot->file->reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
        if (slot->file->reader < 0) die("old bytes cannot be read");
    }
    return slot->file->reader;
}

static void read_old(int fd, char *into, uint64_t length, uint64_t offset) {
    for (uint64_t done = 0; done < length;) {
        ssize_t got = pread(fd, into + done, length - done, offset + done);
        if (got <= 0) die("old bytes are missing");
        done += got;
    }
}

static void note_change(int fd, uint64_t size, uint64_t offset, uint64_t length) {
    struct slot *slot = &slots[fd];
    uint64_t end = offset + length < size ? offset + length : size;
    uint64_t old = offset < end ? end - offset : 0;
    struct record record = {.magic = MAGIC, .kind = CHANGE, .inode = slot->file->inode, .offset = offset,
                            .length = length, .old_size = size, .old_bytes = old};
    char *bytes = NULL;
    if (slot->file->gone) return;
    if (old > 0) {
        if (!(bytes = malloc(old))) die("no memory");
        read_old(reader_of(fd, slot), bytes, old, offset);
    }
    append(&record, bytes);
    free(bytes);
}

static uint64_t size_of(int fd) {
    struct stat stat;
    if (fstat(fd, &stat) != 0) die("a file has no size");
    return stat.st_size;
}

static void note_synced(int fd, uint64_t covers) {
    if (slots[fd].file && !slots[fd].file->gone) append_simple(SYNCED, slots[fd].file->inode, covers);
}

static int is_nosync(int fd) {
    char path[PATH_MAX];
    if (nosync || !nosync_names) return nosync;
    path_of(fd, path);
    size_t length = strlen(path), end = strlen(nosync_names);
    return length >= end && strcmp(path + length - end, nosync_names) == 0;
}

/* at = -1: where the descriptor stands. */
static ssize_t write_tracked(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    uint64_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    enter();
    if (written_bytes + length > enospc_after_bytes) {
        enospc_after_bytes = 0;
        leave();
        errno = ENOSPC;
        return -1;
    }
    uint64_t size = size_of(fd);
    int appends = slots[fd].flags & O_APPEND;
    note_change(fd, size, appends ? size : at >= 0 ? (uint64_t)at : (uint64_t)lseek(fd, 0, SEEK_CUR), length);
    ssize_t done = syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags);
    if (done > 0) written_bytes += done;
    int synced = (slots[fd].flags & O_DSYNC) || (flags & (RWF_DSYNC | RWF_SYNC));
    if (done > 0 && synced && !is_nosync(fd)) note_synced(fd, journal_bytes);
    leave();
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    return is_tracked(fd) ? write_tracked(fd, &part, 1, -1, 0) : syscall(SYS_write, fd, bytes, length);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    struct iovec part = {(void *)bytes, length};
    return is_tracked(fd) ? write_tracked(fd, &part, 1, at, 0) : syscall(SYS_pwrite64, fd, bytes, length, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_tracked(fd) ? write_tracked(fd, parts, count, -1, 0) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return is_tracked(fd) ? write_tracked(fd, parts, count, at, flags)
                          : syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev2(fd, parts, count, at, 0); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    return pwritev2(fd, parts, count, at, 0);
}

/* Copies inside the kernel would bypass the journal: the caller falls back to plain writes. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
    if (!is_tracked(to)) return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    if (!is_tracked(to)) return syscall(SYS_sendfile, to, from, at, length);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

static int truncate_tracked(int fd, off_t length) {
    enter();
    uint64_t size = size_of(fd);
    if ((uint64_t)length < size) note_change(fd, size, length, size - length);
    else note_change(fd, size, size, length - size);
    int result = syscall(SYS_ftruncate, fd, length);
    leave();
    return result;
}

int ftruncate(int fd, off_t length) {
    return is_tracked(fd) ? truncate_tracked(fd, length) : (int)syscall(SYS_ftruncate, fd, length);
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int mode, off_t at, off_t length) {
    if (!is_tracked(fd)) return syscall(SYS_fallocate, fd, mode, at, length);
    enter();
    if (mode != FALLOC_FL_KEEP_SIZE) note_change(fd, size_of(fd), at, length);
    int result = syscall(SYS_fallocate, fd, mode, at, length);
    leave();
    return result;
}
int fallocate64(int fd, int mode, off64_t at, off64_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return posix_fallocate(fd, at, length); }

/* ---- syncs: the real one runs outside the lock ---- */

static int sync_tracked(int fd, long call) {
    if (is_nosync(fd)) return 0;
    enter();
    uint64_t covers = journal_bytes;
    int fails = syncs >= fail_sync_after;
    syncs++;
    leave();
    struct timespec delay = {delay_ms / 1000, (delay_ms % 1000) * 1000000};
    if (delay_ms > 0) nanosleep(&delay, NULL);
    if (fails) {
        errno = EIO;
        return -1;
    }
    int result = syscall(call, fd);
    if (result != 0) return result;
    enter();
    note_synced(fd, covers);
    leave();
    return 0;
}

int fsync(int fd) { return is_tracked(fd) ? sync_tracked(fd, SYS_fsync) : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return is_tracked(fd) ? sync_tracked(fd, SYS_fdatasync) : (int)syscall(SYS_fdatasync, fd); }

/* ---- names: durable at once; only the end of a file is noted, because its inode number may come back ---- */

static uint64_t last_link(int at, const char *path) {
    struct stat stat;
    if (journal < 0 || fstatat(at, path, &stat, AT_SYMLINK_NOFOLLOW) != 0) return 0;
    return S_ISREG(stat.st_mode) && stat.st_nlink == 1 ? stat.st_ino : 0;
}

static void note_gone(uint64_t inode) {
    if (inode == 0) return;
    append_simple(GONE, inode, 0);
    for (struct file *file = files; file; file = file->next)
        if (file->inode == inode) file->gone = 1;
}

int unlinkat(int at, const char *path, int flags) {
    enter();
    uint64_t inode = last_link(at, path);
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (result == 0) note_gone(inode);
    leave();
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int remove(const char *path) {
    int result = unlink(path);
    return result != 0 && errno == EISDIR ? unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : result;
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    enter();
    uint64_t moved = last_link(from_at, from), replaced = flags ? 0 : last_link(to_at, to);
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0 && replaced != moved) note_gone(replaced);
    leave();
    return result;
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renameat2(from_at, from, to_at, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
