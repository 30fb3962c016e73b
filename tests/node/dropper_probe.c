/* Takes the steps of its arguments, says "done" and waits to be killed: the program on which dropper.c is tried. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fd = -1;
static pthread_t aside;

static void check(int good, const char *step) {
    if (good) return;
    perror(step);
    exit(1);
}

static void *sync_now(void *unused) {
    check(fdatasync(fd) == 0, "sync-aside");
    return unused;
}

static void take(const char *step) {
    char name[32], *first = NULL, *second = NULL;
    snprintf(name, sizeof name, "%s", step);
    if ((first = strchr(name, ':'))) *first++ = 0;
    if (first && (second = strchr(first, ':'))) *second++ = 0;
    if (!strcmp(name, "create")) check((fd = open(first, O_WRONLY | O_CREAT | O_TRUNC, 0600)) >= 0, step);
    else if (!strcmp(name, "open")) check((fd = open(first, O_RDONLY)) >= 0, step);
    else if (!strcmp(name, "append")) check((fd = open(first, O_WRONLY | O_APPEND)) >= 0, step);
    else if (!strcmp(name, "write")) check(write(fd, first, strlen(first)) == (ssize_t)strlen(first), step);
    else if (!strcmp(name, "write-fails")) check(write(fd, first, strlen(first)) < 0, step);
    else if (!strcmp(name, "at")) check(pwrite(fd, second, strlen(second), atoi(first)) > 0, step);
    else if (!strcmp(name, "cut")) check(ftruncate(fd, atoi(first)) == 0, step);
    else if (!strcmp(name, "sync")) check(fdatasync(fd) == 0, step);
    else if (!strcmp(name, "sync-fails")) check(fdatasync(fd) < 0, step);
    else if (!strcmp(name, "sync-aside")) check(pthread_create(&aside, NULL, sync_now, NULL) == 0, step);
    else if (!strcmp(name, "join")) check(pthread_join(aside, NULL) == 0, step);
    else if (!strcmp(name, "pause")) usleep(atoi(first) * 1000);
    else if (!strcmp(name, "close")) check(close(fd) == 0, step);
    else if (!strcmp(name, "dup")) check((fd = dup(fd)) >= 0, step);
    else if (!strcmp(name, "rename")) check(rename(first, second) == 0, step);
    else if (!strcmp(name, "unlink")) check(unlink(first) == 0, step);
    else check(0, step);
}

int main(int count, char **steps) {
    for (int i = 1; i < count; i++) take(steps[i]);
    puts("done");
    fflush(stdout);
    for (;;) pause();
}
