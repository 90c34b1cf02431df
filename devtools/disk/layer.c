/* A disk that loses power or fails, for one process: preloaded, it stands between the process and its system calls.
 *
 * disk_watch() makes it append every change below one folder to a log, in the order in which they happen, and kill the
 * process with SIGKILL at a chosen one. The log says what was written and what was synced, from which power_cut.py
 * makes what a disk may hold after that; the files themselves lose nothing. fsync() and fdatasync() only append to the
 * log, which makes them fast. disk_fail() makes system calls on files of the folder fail.
 *
 * A record is a struct record, the name, the second name of a rename, and the data; names are relative to the folder.
 * CREATE, MKDIR, RENAME and UNLINK change a directory, which DIRSYNC makes durable. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation { OPEN = 1, CREATE, WRITE, TRUNCATE, SYNC, DIRSYNC, RENAME, UNLINK, MKDIR, MAP };
enum access { READS, WRITES, SYNCS };
struct record { uint8_t operation; uint16_t name, second; uint32_t data; uint64_t file, offset; } __attribute__((packed));

#define MOST_FDS 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* a change and its record are one step */
static char folder[4096]; static size_t folder_length; /* 0 until disk_watch() */
static int log_fd = -1;
static long kill_at, changes;
static int fail_errno; static long fail_from, fail_times, calls;
static struct { uint64_t file; char *directory; } fds[MOST_FDS]; /* file 0: not watched */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(enum operation op, uint64_t file, uint64_t offset, const char *name, const char *second, const void *data, size_t size)
{
	if(log_fd < 0) return;
	size_t n = name ? strlen(name) : 0, m = second ? strlen(second) : 0;
	struct record head = { op, (uint16_t)n, (uint16_t)m, (uint32_t)size, file, offset };
	struct iovec parts[] = { { &head, sizeof head }, { (void *)name, n }, { (void *)second, m }, { (void *)data, size } };
	if(REAL(writev)(log_fd, parts, 4) != (ssize_t)(sizeof head + n + m + size)) abort();
	if(op != OPEN && op != MAP && ++changes == kill_at){
		kill(getpid(), SIGKILL);
		for(;;) pause();
	}
}

/* The part of a path below the folder, "" for the folder itself, NULL for any other path. */
static const char *below(const char *path)
{
	static __thread char whole[8192];
	if(!folder_length || !path) return NULL;
	if(path[0] != '/'){
		char here[4096];
		if(!getcwd(here, sizeof here)) return NULL;
		snprintf(whole, sizeof whole, "%s/%s", here, path);
		path = whole;
	}
	if(strncmp(path, folder, folder_length)) return NULL;
	path += folder_length;
	if(*path && *path != '/') return NULL;
	return *path ? path + 1 : path;
}

/* Whether this call is to fail, with errno set. A full disk (ENOSPC) and a read-only one (EROFS) can still be read. */
static bool fails(enum access kind)
{
	if(!fail_errno || (kind == READS && fail_errno != EIO) || (kind == SYNCS && fail_errno == EROFS)) return false;
	calls++;
	if(calls < fail_from || (fail_times >= 0 && calls >= fail_from + fail_times)) return false;
	errno = fail_errno;
	return true;
}

static uint64_t file_of(int fd) { return fd >= 0 && fd < MOST_FDS ? fds[fd].file : 0; }

static void unlock(void)
{
	int error = errno;
	pthread_mutex_unlock(&lock);
	errno = error;
}

/* For the process itself, which calls these by ctypes. */

void disk_watch(const char *path, const char *log, long kill_at_change)
{
	pthread_mutex_lock(&lock);
	snprintf(folder, sizeof folder, "%s", path);
	log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if(log_fd < 0) abort();
	kill_at = kill_at_change;
	changes = 0;
	folder_length = strlen(folder);
	unlock();
}

void disk_fail(int error, long from, long times)
{
	pthread_mutex_lock(&lock);
	fail_errno = error; fail_from = from; fail_times = times;
	calls = 0;
	unlock();
}

long disk_changes(void) { return changes; }

long disk_calls(void) { return calls; }

/* Files */

static int opened(const char *path, int flags, mode_t mode)
{
	const char *name = below(path);
	if(!name) return REAL(open)(path, flags, mode);
	pthread_mutex_lock(&lock);
	int fd = -1;
	bool exists = !access(path, F_OK);
	bool only_reads = (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT);
	if(!fails(only_reads ? READS : WRITES) && (fd = REAL(open)(path, flags, mode)) >= 0){
		struct stat about;
		if(fd >= MOST_FDS || fstat(fd, &about)) abort();
		fds[fd].file = about.st_ino;
		fds[fd].directory = S_ISDIR(about.st_mode) ? strdup(name) : NULL;
		if(!fds[fd].directory){
			note(exists ? OPEN : CREATE, about.st_ino, 0, name, NULL, NULL, 0);
			if(exists && (flags & O_TRUNC)) note(TRUNCATE, about.st_ino, 0, NULL, NULL, NULL, 0);
		}
	}
	unlock();
	return fd;
}

#define MODE \
	mode_t mode = 0; \
	if(flags & O_CREAT){ va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE return opened(path, flags, mode); }

int open64(const char *path, int flags, ...) { MODE return opened(path, flags, mode); }

int openat(int dir, const char *path, int flags, ...)
{
	MODE
	if(dir != AT_FDCWD && path[0] != '/') return REAL(openat)(dir, path, flags, mode);
	return opened(path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
	MODE
	if(dir != AT_FDCWD && path[0] != '/') return REAL(openat)(dir, path, flags, mode);
	return opened(path, flags, mode);
}

int close(int fd)
{
	if(file_of(fd)){
		pthread_mutex_lock(&lock);
		fds[fd].file = 0;
		free(fds[fd].directory);
		fds[fd].directory = NULL;
		unlock();
	}
	return REAL(close)(fd);
}

static ssize_t written(int fd, const void *data, size_t size, off_t offset)
{
	pthread_mutex_lock(&lock);
	ssize_t done = -1;
	bool failing = fails(WRITES);
	if(failing && errno == ENOSPC && size > 1){ /* the disk takes the first half; the next write fails */
		size /= 2;
		failing = false;
	}
	if(!failing && (done = REAL(pwrite)(fd, data, size, offset)) > 0)
		note(WRITE, file_of(fd), (uint64_t)offset, NULL, NULL, data, (size_t)done);
	unlock();
	return done;
}

ssize_t write(int fd, const void *data, size_t size)
{
	if(!file_of(fd)) return REAL(write)(fd, data, size);
	off_t offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
	ssize_t done = written(fd, data, size, offset);
	if(done > 0) lseek(fd, offset + done, SEEK_SET);
	return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
	return file_of(fd) ? written(fd, data, size, offset) : REAL(pwrite)(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

static bool read_fails(int fd)
{
	if(!file_of(fd) || !fail_errno) return false;
	pthread_mutex_lock(&lock);
	bool failing = fails(READS);
	unlock();
	return failing;
}

ssize_t read(int fd, void *data, size_t size) { return read_fails(fd) ? -1 : REAL(read)(fd, data, size); }

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
	return read_fails(fd) ? -1 : REAL(pread)(fd, data, size, offset);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset) { return pread(fd, data, size, offset); }

int ftruncate(int fd, off_t size)
{
	if(!file_of(fd)) return REAL(ftruncate)(fd, size);
	pthread_mutex_lock(&lock);
	int result = fails(WRITES) ? -1 : REAL(ftruncate)(fd, size);
	if(!result) note(TRUNCATE, file_of(fd), (uint64_t)size, NULL, NULL, NULL, 0);
	unlock();
	return result;
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int fsync(int fd)
{
	if(!file_of(fd)) return REAL(fsync)(fd);
	pthread_mutex_lock(&lock);
	int result = fails(SYNCS) ? -1 : 0;
	if(!result) note(fds[fd].directory ? DIRSYNC : SYNC, file_of(fd), 0, fds[fd].directory, NULL, NULL, 0);
	unlock();
	return result;
}

int fdatasync(int fd) { return file_of(fd) ? fsync(fd) : REAL(fdatasync)(fd); }

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	if(file_of(fd) && (protection & PROT_WRITE) && (flags & MAP_SHARED)){ /* what is written there is not seen here */
		pthread_mutex_lock(&lock);
		note(MAP, file_of(fd), 0, NULL, NULL, NULL, 0);
		unlock();
	}
	return REAL(mmap)(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
	return mmap(at, size, protection, flags, fd, offset);
}

/* Directories */

static int changed(enum operation op, int result, const char *name, const char *second)
{
	if(!result) note(op, 0, 0, name, second, NULL, 0);
	unlock();
	return result;
}

int unlink(const char *path)
{
	const char *name = below(path);
	if(!name) return REAL(unlink)(path);
	pthread_mutex_lock(&lock);
	return changed(UNLINK, fails(WRITES) ? -1 : REAL(unlink)(path), name, NULL);
}

int rename(const char *from, const char *to)
{
	const char *name = below(from);
	if(!name) return REAL(rename)(from, to);
	char *first = strdup(name); /* the next path may be below() in the same buffer */
	const char *second = below(to);
	if(!second) abort(); /* out of the folder: nothing here does that */
	pthread_mutex_lock(&lock);
	int result = changed(RENAME, fails(WRITES) ? -1 : REAL(rename)(from, to), first, second);
	int error = errno;
	free(first);
	errno = error;
	return result;
}

int mkdir(const char *path, mode_t mode)
{
	const char *name = below(path);
	if(!name || !*name) return REAL(mkdir)(path, mode);
	pthread_mutex_lock(&lock);
	return changed(MKDIR, fails(WRITES) ? -1 : REAL(mkdir)(path, mode), name, NULL);
}
