#include <costate/finetune/reward/child_process.h>
#include <costate/tensor/error.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

extern char** environ;

namespace costate::finetune {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

// An end of a pipe that is closed unless it is released.
struct End {
  int fd = -1;
  ~End() {
    if (fd >= 0) ::close(fd);
  }
  int release() { return std::exchange(fd, -1); }
};

// Numbers from 3 on: a host that closed its standard streams has pipes there, which dup2 in the child would overwrite.
void open_pipe(End& read, End& write) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) fail(Fault::io, {"a pipe to a child process cannot be opened: ", reason(errno)});
  End* const ends[] = {&read, &write};
  for (int i = 0; i < 2; ++i) {
    ends[i]->fd = fds[i];
    if (fds[i] > 2) continue;
    End low;
    low.fd = fds[i];
    ends[i]->fd = ::fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    if (ends[i]->fd < 0) {
      if (i == 0) ::close(fds[1]);
      fail(Fault::io, {"a pipe to a child process cannot be opened: ", reason(errno)});
    }
  }
}

struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSettings() { posix_spawn_file_actions_init(&actions), posix_spawnattr_init(&attributes); }
  ~SpawnSettings() { posix_spawn_file_actions_destroy(&actions), posix_spawnattr_destroy(&attributes); }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

// Holds SIGPIPE back in this thread; one that a write raised is taken away before the mask is restored, one that was pending
// before stays so.
class WithoutSigpipe {
 public:
  WithoutSigpipe() {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&pipe_), sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~WithoutSigpipe() {
    if (!was_pending_) {
      const timespec now{};
      while (sigtimedwait(&pipe_, nullptr, &now) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutSigpipe(const WithoutSigpipe&) = delete;
  WithoutSigpipe& operator=(const WithoutSigpipe&) = delete;

 private:
  sigset_t pipe_, before_;
  bool was_pending_;
};

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command) {
  End child_in, input, output, child_out;
  open_pipe(child_in, input), open_pipe(output, child_out);
  SpawnSettings s;
  posix_spawn_file_actions_adddup2(&s.actions, child_in.fd, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&s.actions, child_out.fd, STDOUT_FILENO);
  sigset_t none, standard;
  sigemptyset(&none), sigemptyset(&standard), sigaddset(&standard, SIGPIPE);
  posix_spawnattr_setsigmask(&s.attributes, &none), posix_spawnattr_setsigdefault(&s.attributes, &standard);
  posix_spawnattr_setpgroup(&s.attributes, 0);
  posix_spawnattr_setflags(&s.attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> words;
  for (const std::string& w : command) words.push_back(const_cast<char*>(w.c_str()));
  words.push_back(nullptr);
  pid_t pid = -1;
  if (const int error = ::posix_spawnp(&pid, words[0], &s.actions, &s.attributes, words.data(), environ); error != 0)
    fail(Fault::io, {"'", command[0], "' cannot be started: ", reason(error)});
  pid_ = pid;
  input_ = input.release(), output_ = output.release();
  for (const int fd : {input_, output_}) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

ChildProcess::~ChildProcess() {
  close_input();
  ::close(output_);
  ended(std::chrono::milliseconds(200));
  // As long as its leader was not waited for, the number of the group is no other's.
  ::kill(-pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ChildProcess::close_input() {
  if (input_ >= 0) ::close(std::exchange(input_, -1));
}

bool ChildProcess::exchange(std::span<const char>& to_write, Deadline deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd ends[2] = {{output_ended_ ? -1 : output_, POLLIN, 0}, {to_write.empty() ? -1 : input_, POLLOUT, 0}};
    if (ends[0].fd < 0 && ends[1].fd < 0) return false;
    const int ready = ::poll(ends, 2, static_cast<int>(std::clamp<long long>(left, 0, 1 << 30)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0 && left <= 0) return false;
    if (ready <= 0) continue;
    if (ends[0].revents) {
      char bytes[1 << 16];
      const ssize_t n = ::read(output_, bytes, sizeof bytes);
      if (n > 0)
        arrived_.append(bytes, static_cast<std::size_t>(n));
      else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        output_ended_ = true;
    }
    if (ends[1].revents) {
      const WithoutSigpipe guard;
      const ssize_t n = ::write(input_, to_write.data(), to_write.size());
      if (n > 0)
        to_write = to_write.subspan(static_cast<std::size_t>(n));
      else if (n < 0 && errno != EAGAIN && errno != EINTR)
        return input_refused_ = true, false;
    }
    return true;
  }
}

bool ChildProcess::write(std::span<const char> bytes, Deadline deadline) {
  while (!bytes.empty())
    if (output_ended_ || !exchange(bytes, deadline)) return false;
  return true;
}

bool ChildProcess::await(std::size_t size, bool line, Deadline deadline) {
  std::span<const char> nothing;
  for (std::size_t seen = 0;;) {
    if (arrived_.size() >= size || (line && arrived_.find('\n', seen) != std::string::npos)) return true;
    seen = arrived_.size();
    if (output_ended_ || !exchange(nothing, deadline)) return false;
  }
}

std::string ChildProcess::take(std::size_t size) {
  std::string out = arrived_.substr(0, size);
  arrived_.erase(0, size);
  return out;
}

bool ChildProcess::ended(std::chrono::milliseconds patience) {
  for (const auto deadline = std::chrono::steady_clock::now() + patience;;) {
    siginfo_t info{};
    // Without taking the status: until then no other process gets its number.
    const int status = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
    if ((status == 0 && info.si_pid == pid_) || (status < 0 && errno == ECHILD)) return true;
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::string ChildProcess::state() {
  if (!ended(std::chrono::milliseconds(output_ended_ || input_refused_ ? 500 : 0)))
    return output_ended_ ? "closed its output" : input_refused_ ? "closed its input" : "still runs";
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0) return "ended";
  return sentence({info.si_code == CLD_EXITED ? "exited with status " : "was ended by signal ", info.si_status});
}

}  // namespace costate::finetune
