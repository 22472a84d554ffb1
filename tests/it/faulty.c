/* Makes the files of a test's program fail: preloaded, it stands before the C library.
 * FAULT_PATH: only files whose path holds this; FAULT_KIND: "short", "enospc" or "kill";
 * FAULT_AT: from which of such calls on, counted from 1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls;

static int path_counts(const char *path) {
  const char *wanted = getenv("FAULT_PATH");
  return wanted && path && strstr(path, wanted);
}

static int file_counts(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return path_counts(path);
}

/* Whether the fault of this kind is due at this call. */
static int due(const char *kind) {
  const char *wanted = getenv("FAULT_KIND"), *at = getenv("FAULT_AT");
  return wanted && !strcmp(wanted, kind) && calls >= (at ? atoi(at) : 1);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  if (!file_counts(fd)) return real(fd, bytes, count);
  __sync_fetch_and_add(&calls, 1);
  if (due("enospc")) {
    errno = ENOSPC;
    return -1;
  }
  if (due("kill")) {
    real(fd, bytes, count / 2);
    kill(getpid(), SIGKILL);
  }
  if (due("short") && count > 1) count = (count + 1) / 2;
  return real(fd, bytes, count);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  if (file_counts(fd)) {
    __sync_fetch_and_add(&calls, 1);
    if (due("kill")) kill(getpid(), SIGKILL);
  }
  return real(fd);
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  if (path_counts(to)) {
    __sync_fetch_and_add(&calls, 1);
    if (due("kill")) kill(getpid(), SIGKILL);
  }
  return real(from, to);
}
