// Being asked to stop: SIGINT and SIGTERM, and SIGUSR1 of a launcher. The first one is a request, which a training answers
// after its update and any other stage before its next step; the second one ends the process at once.
#pragma once
#include <exception>
#include <string>

namespace costate::cli {

// A run that stopped because it was asked to. The program's exit code is then interrupted_code.
class Interrupted : public std::exception {
 public:
  explicit Interrupted(std::string sentence) : sentence_(std::move(sentence)) {}
  const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  std::string sentence_;
};
inline constexpr int interrupted_code = 75;  // EX_TEMPFAIL of sysexits.h: try again

// Takes the two signals as long as it stands; one at a time. Those that the caller ignores stay ignored. With `by_launcher` it
// takes SIGUSR1 as well, which mpirun passes on to the processes that it has started, where it ends them itself on the others.
class StopOnSignals {
 public:
  explicit StopOnSignals(bool by_launcher = false);
  ~StopOnSignals();
  StopOnSignals(const StopOnSignals&) = delete;
  StopOnSignals& operator=(const StopOnSignals&) = delete;
};
bool stop_requested();

}  // namespace costate::cli
