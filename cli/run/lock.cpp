#include "run/lock.h"

#include <costate/tensor/error.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

namespace costate::cli {

RunLock::~RunLock() {
  if (fd_ >= 0) close(fd_);
}

void RunLock::take() {
  if (fd_ >= 0 || path_.empty()) return;
  // Closed in programs that the run starts: a reward that outlives it must not hold the run's directory.
  const int fd = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // not there, or no directory: whoever writes says so
  int status = 0;
  while ((status = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) {
  }
  if (status != 0 && errno == EWOULDBLOCK) {
    close(fd);
    fail(Fault::argument, {"out: another process is writing to '", path_, "'; wait for its end, or give another --out"});
  }
  fd_ = fd;
}

}  // namespace costate::cli
