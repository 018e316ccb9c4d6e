// Counts the calls of a program that touch files below one folder, and lets one of them fail. The program loads this library
// before the C library, by LD_PRELOAD, and the environment says what happens:
//
//   CLOZE_FAULT_ROOT   the folder
//   CLOZE_FAULT_LOG    a file outside of it that receives a line for each call, or only for the one that fails: what the call
//                      does, its name, and the path within the folder
//   CLOZE_FAULT_CALL   the number of the call that fails, from 1; 0 for none
//   CLOZE_FAULT_WAY    how, by a name of `ways`
//
// Not counted is closedir, whose failure makes Rust's standard library panic: Linux lets it fail only for a descriptor that is
// not open.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum way {
  PASS,
  NO_SPACE,     // ENOSPC, once
  IO_ERROR,     // EIO, once
  INTERRUPTED,  // EINTR, once
  SHORT,        // reads or writes half of the bytes
  KILLED,       // SIGKILL instead of the call
  TORN,         // SIGKILL after the call, or after half of the bytes
  FULL,         // ENOSPC for this call and all later ones that need space
  DEAD,         // EIO for this call and all later ones
};
static const char* const ways[] = {"pass", "ENOSPC", "EIO", "EINTR", "short", "kill", "torn", "full", "dead"};

// What a call does.
enum kind { LOOKS, READS, WRITES, NEEDS_SPACE };
static const char* const kinds[] = {"looks", "reads", "writes", "needs-space"};

struct outcome {
  int error;   // 0, or the error that the caller gets instead of the call
  bool halved; // half of the bytes are read or written
  bool fatal;  // the process dies after the call
};

static char root[PATH_MAX];
static size_t root_length;
static long chosen;
static enum way way;
static int log_file = -1;
static atomic_long calls;
// The paths of the descriptors of files below the root.
static char* paths[1 << 14];

__attribute__((constructor)) static void start(void) {
  const char *folder = getenv("CLOZE_FAULT_ROOT"), *log = getenv("CLOZE_FAULT_LOG");
  const char *call = getenv("CLOZE_FAULT_CALL"), *name = getenv("CLOZE_FAULT_WAY");
  if (!folder || !log || !call || !name || strlen(folder) >= sizeof root) return;
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    if (!strcmp(name, ways[i])) way = i;
  }
  chosen = atol(call);
  log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  strcpy(root, folder);
  root_length = strlen(folder);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// Counts a call, if it has a path below the root, and decides what becomes of it.
static struct outcome meet(const char* call, const char* path, enum kind kind) {
  struct outcome outcome = {0};
  if (!path) return outcome;
  long number = atomic_fetch_add(&calls, 1) + 1;
  bool is_chosen = number == chosen, is_later = chosen && number > chosen;
  if (!chosen || is_chosen) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s %s\n", kinds[kind], call, path + root_length);
    syscall(SYS_write, log_file, line, length);
  }
  if (is_chosen && way == NO_SPACE) outcome.error = ENOSPC;
  if (is_chosen && way == IO_ERROR) outcome.error = EIO;
  if (is_chosen && way == INTERRUPTED) outcome.error = EINTR;
  if (is_chosen && way == KILLED) die();
  if (is_chosen) outcome.halved = way == SHORT || (way == TORN && kind != READS);
  if (is_chosen) outcome.fatal = way == TORN;
  if ((is_chosen || is_later) && way == FULL && kind == NEEDS_SPACE) outcome.error = ENOSPC;
  if ((is_chosen || is_later) && way == DEAD) outcome.error = EIO;
  return outcome;
}

// Returns the absolute path, in `buffer`, if it lies below the root.
static const char* below(int folder, const char* path, char buffer[PATH_MAX]) {
  if (!root_length || !path) return NULL;
  const char* start = "";
  char working[PATH_MAX];
  if (*path != '/' && folder == AT_FDCWD) start = getcwd(working, sizeof working);
  if (*path != '/' && folder != AT_FDCWD) start = folder >= 0 && folder < 1 << 14 ? paths[folder] : NULL;
  if (!start) return NULL;
  int length = snprintf(buffer, PATH_MAX, "%s%s%s", start, *start && *path ? "/" : "", path);
  if (length >= PATH_MAX || strncmp(buffer, root, root_length)) return NULL;
  return buffer[root_length] == '/' || !buffer[root_length] ? buffer : NULL;
}

static const char* path_of(int file) { return file >= 0 && file < 1 << 14 ? paths[file] : NULL; }

// Remembers the path of a new descriptor.
static int opened(int file, const char* path) {
  if (file >= 0 && file < 1 << 14) {
    free(paths[file]);
    paths[file] = path ? strdup(path) : NULL;
  }
  return file;
}

// The function of this name in the C library.
#define REAL(name)                                                  \
  ({                                                                \
    static __typeof__(&name) found;                                 \
    if (!found) found = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
    found;                                                          \
  })

// Counts a call, and makes it unless it is to fail. `made` may use SIZE.
#define CALL(name, path, kind, failed, made)       \
  do {                                             \
    struct outcome met = meet(name, path, kind);   \
    if (met.error) {                               \
      errno = met.error;                           \
      return failed;                               \
    }                                              \
    __typeof__(made) result = made;                \
    if (met.fatal) die();                          \
    return result;                                 \
  } while (0)

// The number of bytes that a call reads or writes.
#define SIZE(count) (met.halved && (count) > 1 ? (count) / 2 : (count))

// --- Opening and closing

static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0; }

#define OPENS(flags) ((flags) & O_CREAT ? NEEDS_SPACE : LOOKS)

#define DEFINE_OPEN(name)                                                              \
  int name(const char* path, int flags, ...) {                                         \
    va_list list;                                                                      \
    va_start(list, flags);                                                             \
    mode_t mode = mode_of(flags, list);                                                \
    va_end(list);                                                                      \
    char buffer[PATH_MAX];                                                             \
    const char* full = below(AT_FDCWD, path, buffer);                                  \
    CALL("open", full, OPENS(flags), -1, opened(REAL(name)(path, flags, mode), full)); \
  }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                                                  \
  int name(int folder, const char* path, int flags, ...) {                                   \
    va_list list;                                                                            \
    va_start(list, flags);                                                                   \
    mode_t mode = mode_of(flags, list);                                                      \
    va_end(list);                                                                            \
    char buffer[PATH_MAX];                                                                   \
    const char* full = below(folder, path, buffer);                                          \
    CALL("openat", full, OPENS(flags), -1, opened(REAL(name)(folder, path, flags, mode), full)); \
  }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

#define DEFINE_CREAT(name)                                                               \
  int name(const char* path, mode_t mode) {                                              \
    char buffer[PATH_MAX];                                                               \
    const char* full = below(AT_FDCWD, path, buffer);                                    \
    CALL("creat", full, NEEDS_SPACE, -1, opened(REAL(name)(path, mode), full));    \
  }
DEFINE_CREAT(creat)
DEFINE_CREAT(creat64)

// Linux closes the descriptor even if it reports an error.
int close(int file) {
  const char* path = path_of(file);
  struct outcome met = meet("close", path, WRITES);
  if (path) opened(file, NULL);
  int result = REAL(close)(file);
  if (met.fatal) die();
  if (!met.error) return result;
  errno = met.error;
  return -1;
}

static bool copies(int command) { return command == F_DUPFD || command == F_DUPFD_CLOEXEC; }

#define DEFINE_FCNTL(name)                                                                          \
  int name(int file, int command, ...) {                                                            \
    va_list list;                                                                                   \
    va_start(list, command);                                                                        \
    void* argument = va_arg(list, void*);                                                           \
    va_end(list);                                                                                   \
    const char* path = path_of(file);                                                               \
    if (!copies(command)) CALL("fcntl", path, LOOKS, -1, REAL(name)(file, command, argument)); \
    CALL("fcntl", path, LOOKS, -1, opened(REAL(name)(file, command, argument), path));        \
  }
DEFINE_FCNTL(fcntl)
DEFINE_FCNTL(fcntl64)

int flock(int file, int operation) { CALL("flock", path_of(file), LOOKS, -1, REAL(flock)(file, operation)); }

// --- Reading and writing

ssize_t read(int file, void* to, size_t count) {
  CALL("read", path_of(file), READS, -1, REAL(read)(file, to, SIZE(count)));
}
ssize_t write(int file, const void* from, size_t count) {
  CALL("write", path_of(file), NEEDS_SPACE, -1, REAL(write)(file, from, SIZE(count)));
}
ssize_t pread64(int file, void* to, size_t count, off64_t at) {
  CALL("pread", path_of(file), READS, -1, REAL(pread64)(file, to, SIZE(count), at));
}
ssize_t pread(int file, void* to, size_t count, off_t at) {
  CALL("pread", path_of(file), READS, -1, REAL(pread)(file, to, SIZE(count), at));
}
ssize_t pwrite64(int file, const void* from, size_t count, off64_t at) {
  CALL("pwrite", path_of(file), NEEDS_SPACE, -1, REAL(pwrite64)(file, from, SIZE(count), at));
}
ssize_t pwrite(int file, const void* from, size_t count, off_t at) {
  CALL("pwrite", path_of(file), NEEDS_SPACE, -1, REAL(pwrite)(file, from, SIZE(count), at));
}
// Half of the parts, or half of the only one.
ssize_t readv(int file, const struct iovec* parts, int count) {
  struct iovec first = *parts;
  CALL("readv", path_of(file), READS, -1,
       count == 1 ? (first.iov_len = SIZE(first.iov_len), REAL(readv)(file, &first, 1))
                  : REAL(readv)(file, parts, SIZE(count)));
}
ssize_t writev(int file, const struct iovec* parts, int count) {
  struct iovec first = *parts;
  CALL("writev", path_of(file), NEEDS_SPACE, -1,
       count == 1 ? (first.iov_len = SIZE(first.iov_len), REAL(writev)(file, &first, 1))
                  : REAL(writev)(file, parts, SIZE(count)));
}
ssize_t copy_file_range(int from, off64_t* at, int to, off64_t* there, size_t count, unsigned flags) {
  CALL("copy_file_range", path_of(to), NEEDS_SPACE, -1, REAL(copy_file_range)(from, at, to, there, SIZE(count), flags));
}
ssize_t sendfile(int to, int from, off_t* at, size_t count) {
  CALL("sendfile", path_of(to), NEEDS_SPACE, -1, REAL(sendfile)(to, from, at, SIZE(count)));
}
ssize_t sendfile64(int to, int from, off64_t* at, size_t count) {
  CALL("sendfile", path_of(to), NEEDS_SPACE, -1, REAL(sendfile64)(to, from, at, SIZE(count)));
}
off64_t lseek64(int file, off64_t at, int from) {
  CALL("lseek", path_of(file), LOOKS, -1, REAL(lseek64)(file, at, from));
}
// What reaches the disk shows after a power failure only, so nothing is synced: that takes nearly all of the time.
int fsync(int file) { CALL("fsync", path_of(file), NEEDS_SPACE, -1, path_of(file) ? 0 : REAL(fsync)(file)); }
int fdatasync(int file) { CALL("fdatasync", path_of(file), NEEDS_SPACE, -1, path_of(file) ? 0 : REAL(fdatasync)(file)); }
int ftruncate(int file, off_t size) {
  CALL("ftruncate", path_of(file), NEEDS_SPACE, -1, REAL(ftruncate)(file, size));
}
int ftruncate64(int file, off64_t size) {
  CALL("ftruncate", path_of(file), NEEDS_SPACE, -1, REAL(ftruncate64)(file, size));
}
void* mmap(void* at, size_t size, int protection, int flags, int file, off_t offset) {
  const char* path = flags & MAP_ANONYMOUS ? NULL : path_of(file);
  CALL("mmap", path, READS, MAP_FAILED, REAL(mmap)(at, size, protection, flags, file, offset));
}
void* mmap64(void* at, size_t size, int protection, int flags, int file, off64_t offset) {
  const char* path = flags & MAP_ANONYMOUS ? NULL : path_of(file);
  CALL("mmap", path, READS, MAP_FAILED, REAL(mmap64)(at, size, protection, flags, file, offset));
}

// --- Names

// A call on a path, with the arguments before and after it.
#define DEFINE_NAMED(name, kind, folder, path, parameters, arguments)  \
  int name parameters {                                               \
    char buffer[PATH_MAX];                                            \
    CALL(#name, below(folder, path, buffer), kind, -1, REAL(name) arguments); \
  }
DEFINE_NAMED(mkdir, NEEDS_SPACE, AT_FDCWD, path, (const char* path, mode_t mode), (path, mode))
DEFINE_NAMED(mkdirat, NEEDS_SPACE, folder, path, (int folder, const char* path, mode_t mode), (folder, path, mode))
DEFINE_NAMED(rmdir, WRITES, AT_FDCWD, path, (const char* path), (path))
DEFINE_NAMED(unlink, WRITES, AT_FDCWD, path, (const char* path), (path))
DEFINE_NAMED(unlinkat, WRITES, folder, path, (int folder, const char* path, int flags), (folder, path, flags))
DEFINE_NAMED(rename, WRITES, AT_FDCWD, to, (const char* from, const char* to), (from, to))
DEFINE_NAMED(renameat, WRITES, new, to, (int old, const char* from, int new, const char* to), (old, from, new, to))
DEFINE_NAMED(renameat2, WRITES, new, to, (int old, const char* from, int new, const char* to, unsigned flags),
             (old, from, new, to, flags))
DEFINE_NAMED(link, NEEDS_SPACE, AT_FDCWD, to, (const char* from, const char* to), (from, to))
DEFINE_NAMED(linkat, NEEDS_SPACE, new, to, (int old, const char* from, int new, const char* to, int flags),
             (old, from, new, to, flags))
DEFINE_NAMED(symlink, NEEDS_SPACE, AT_FDCWD, path, (const char* to, const char* path), (to, path))
DEFINE_NAMED(symlinkat, NEEDS_SPACE, folder, path, (const char* to, int folder, const char* path), (to, folder, path))
DEFINE_NAMED(chmod, WRITES, AT_FDCWD, path, (const char* path, mode_t mode), (path, mode))
DEFINE_NAMED(access, LOOKS, AT_FDCWD, path, (const char* path, int mode), (path, mode))
DEFINE_NAMED(stat, LOOKS, AT_FDCWD, path, (const char* path, struct stat* to), (path, to))
DEFINE_NAMED(lstat, LOOKS, AT_FDCWD, path, (const char* path, struct stat* to), (path, to))
DEFINE_NAMED(stat64, LOOKS, AT_FDCWD, path, (const char* path, struct stat64* to), (path, to))
DEFINE_NAMED(lstat64, LOOKS, AT_FDCWD, path, (const char* path, struct stat64* to), (path, to))
DEFINE_NAMED(fstatat64, LOOKS, folder, path, (int folder, const char* path, struct stat64* to, int flags),
             (folder, path, to, flags))
DEFINE_NAMED(statx, LOOKS, folder, path,
             (int folder, const char* path, int flags, unsigned mask, struct statx* to), (folder, path, flags, mask, to))

int fstat(int file, struct stat* to) { CALL("fstat", path_of(file), LOOKS, -1, REAL(fstat)(file, to)); }
int fstat64(int file, struct stat64* to) { CALL("fstat", path_of(file), LOOKS, -1, REAL(fstat64)(file, to)); }
int fchmod(int file, mode_t mode) { CALL("fchmod", path_of(file), WRITES, -1, REAL(fchmod)(file, mode)); }
int futimens(int file, const struct timespec times[2]) {
  CALL("futimens", path_of(file), WRITES, -1, REAL(futimens)(file, times));
}
ssize_t readlink(const char* path, char* to, size_t size) {
  char buffer[PATH_MAX];
  CALL("readlink", below(AT_FDCWD, path, buffer), LOOKS, -1, REAL(readlink)(path, to, size));
}
char* realpath(const char* path, char* to) {
  char buffer[PATH_MAX];
  CALL("realpath", below(AT_FDCWD, path, buffer), LOOKS, NULL, REAL(realpath)(path, to));
}

// --- Folders

DIR* opendir(const char* path) {
  char buffer[PATH_MAX];
  const char* full = below(AT_FDCWD, path, buffer);
  struct outcome met = meet("opendir", full, LOOKS);
  if (met.error) {
    errno = met.error;
    return NULL;
  }
  DIR* folder = REAL(opendir)(path);
  if (met.fatal) die();
  if (folder) opened(dirfd(folder), full);
  return folder;
}
DIR* fdopendir(int file) { CALL("fdopendir", path_of(file), LOOKS, NULL, REAL(fdopendir)(file)); }
struct dirent* readdir(DIR* folder) {
  CALL("readdir", path_of(dirfd(folder)), LOOKS, NULL, REAL(readdir)(folder));
}
struct dirent64* readdir64(DIR* folder) {
  CALL("readdir", path_of(dirfd(folder)), LOOKS, NULL, REAL(readdir64)(folder));
}
int closedir(DIR* folder) {
  opened(dirfd(folder), NULL);
  return REAL(closedir)(folder);
}
