#include <costate/tensor/hooks.h>

#include <utility>

namespace costate {
namespace {

constinit thread_local HookScope* current = nullptr;

}  // namespace

// What the free functions see of the scopes.
struct HookAccess {
  static const Hooks& hooks() { return current->hooks_; }  // where there are any
  // Calls `give` with the sink that the scope reports to, if there is one; one call at a time.
  template <class Sink, class Give>
  static void tell(HookScope* scope, HookScope* HookScope::*owner, Sink Hooks::*sink, const Give& give) {
    HookScope* const of = scope ? scope->*owner : nullptr;
    if (!of || !(of->hooks_.*sink)) return;
    const std::lock_guard lock(of->sinks_);
    give(of->hooks_.*sink);
  }
  static void log(Severity severity, std::initializer_list<Piece> pieces) {
    tell(current, &HookScope::log_of_, &Hooks::log, [&](const auto& sink) { sink(severity, sentence(pieces)); });
  }
  static void progress(HookScope* scope, std::string_view task, const std::atomic<std::int64_t>& done, std::int64_t total) {
    // `done` is read while no other report is made: reports never go backwards.
    tell(scope, &HookScope::progress_of_, &Hooks::progress,
         [&](const auto& sink) { sink(Progress{task, done.load(std::memory_order_relaxed), total}); });
  }
};

HookScope::HookScope(Hooks hooks) : hooks_(std::move(hooks)), outer_(current), progress_of_(this), log_of_(this) {
  if (outer_) {
    const Hooks& out = outer_->hooks_;
    if (!hooks_.executor) hooks_.executor = out.executor;
    if (!hooks_.allocator) hooks_.allocator = out.allocator;
    if (!hooks_.stop.stop_possible()) hooks_.stop = out.stop;
    if (!hooks_.progress) progress_of_ = outer_->progress_of_;
    if (!hooks_.log) log_of_ = outer_->log_of_;
  }
  current = this;
}
HookScope::~HookScope() { current = outer_; }

bool cancelled() { return current && HookAccess::hooks().stop.stop_requested(); }
void check_cancelled(std::string_view what) {
  if (cancelled()) [[unlikely]]
    throw Cancelled(sentence({what, ": the host asked to stop"}));
}

void log(Severity severity, std::initializer_list<Piece> pieces) { HookAccess::log(severity, pieces); }

ProgressReport::ProgressReport(std::string_view task, std::int64_t total) : task_(task), total_(total), scope_(current) {}
void ProgressReport::add(std::int64_t items) {
  done_.fetch_add(items, std::memory_order_relaxed);
  HookAccess::progress(scope_, task_, done_, total_);
}

namespace detail {

HookScope* current_hooks() { return current; }
HookScope* exchange_hooks(HookScope* scope) { return std::exchange(current, scope); }
Executor* current_executor() { return current ? HookAccess::hooks().executor : nullptr; }
Allocator* current_allocator() { return current ? HookAccess::hooks().allocator : nullptr; }

}  // namespace detail
}  // namespace costate
