#include "run/stop.h"

#include <signal.h>

#include <array>
#include <atomic>

namespace costate::cli {
namespace {

constexpr std::array<int, 3> asking{SIGINT, SIGTERM, SIGUSR1};  // the last one is a launcher's
std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may write it");
std::array<struct sigaction, asking.size()> before{};

extern "C" void take_request(int signal) {
  if (!requested.exchange(true)) return;
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  raise(signal);  // delivered when this handler returns
}

}  // namespace

StopOnSignals::StopOnSignals(bool by_launcher) {
  requested = false;
  struct sigaction own{};
  own.sa_handler = take_request;
  own.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < asking.size(); ++i) {
    sigaction(asking[i], nullptr, &before[i]);
    if (before[i].sa_handler != SIG_IGN && (asking[i] != SIGUSR1 || by_launcher)) sigaction(asking[i], &own, nullptr);
  }
}
StopOnSignals::~StopOnSignals() {
  for (std::size_t i = 0; i < asking.size(); ++i) sigaction(asking[i], &before[i], nullptr);
  requested = false;
}
bool stop_requested() { return requested.load(std::memory_order_relaxed); }

}  // namespace costate::cli
