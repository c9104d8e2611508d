// A library that is loaded before a program (LD_PRELOAD) and takes the place of its system calls as its environment says:
//
//   COSTATE_FAULTS_FOLDER   calls below this folder are watched, of all threads
//   COSTATE_FAULTS_CALL     the number of the call, from 0, of those that change the disk, at which it happens; none: never
//   COSTATE_FAULTS_DO       what: killed, power, power_in_order, or an errno, once (28: ENOSPC), or from then on (28+)
//   COSTATE_FAULTS_LOG      a file that gets one line a call that changes the disk, "rename PATH", when the program ends well
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "faults/system_calls.h"

namespace costate::faults {
namespace {

std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text ? text : "";
}

struct Preloaded {
  std::unique_ptr<Scope> scope;
  std::string log;
  Preloaded() {
    const std::string folder = variable("COSTATE_FAULTS_FOLDER"), call = variable("COSTATE_FAULTS_CALL"),
                      what = variable("COSTATE_FAULTS_DO");
    log = variable("COSTATE_FAULTS_LOG");
    if (folder.empty()) return;
    // Of this process alone: programs that it starts are not watched.
    for (const char* name : {"LD_PRELOAD", "COSTATE_FAULTS_FOLDER"}) ::unsetenv(name);
    const std::size_t at = call.empty() ? ~std::size_t{0} : std::stoull(call);
    const Death death = what == "killed"           ? Death::killed
                        : what == "power"          ? Death::power
                        : what == "power_in_order" ? Death::power_in_order
                                                   : Death::none;
    const int reason = death == Death::none && !what.empty() ? std::stoi(what) : 0;
    const bool on = what.ends_with('+');
    scope = std::make_unique<Scope>(
        folder,
        [=, seen = std::size_t{0}](Call c, std::size_t) mutable {
          if (!changes(c)) return Verdict{};
          const std::size_t index = seen++;
          if (index < at || (index > at && !on)) return Verdict{};
          if (reason) return Verdict{.reason = reason};
          return Verdict{.most = c == Call::write ? std::size_t{1} : ~std::size_t{0}, .dies = death};
        },
        death == Death::power || death == Death::power_in_order, Scope::Threads::all);
  }
  ~Preloaded() {
    if (!scope) return;
    std::string lines;
    for (const Record& r : scope->calls())
      if (changes(r.call)) lines += std::string(name(r.call)) + " " + r.path + "\n";
    scope.reset();
    if (log.empty()) return;
    constexpr int anew = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    const auto fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, log.c_str(), anew, 0666));
    if (fd < 0) return;
    syscall(SYS_write, fd, lines.data(), lines.size());
    syscall(SYS_close, fd);
  }
} preloaded;

}  // namespace
}  // namespace costate::faults
