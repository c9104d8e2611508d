#include "progress.h"

#include <costate/tensor/memory.h>

#include <unistd.h>

#include <cstdio>

namespace costate::cli {
namespace {
constexpr double terminal_interval = 0.2, plain_interval = 5.0;  // seconds
}

std::string duration_text(double s) {
  char text[48];
  if (s < 100)
    std::snprintf(text, sizeof text, "%.1f s", s);
  else if (s < 6000)
    std::snprintf(text, sizeof text, "%d min %02d s", static_cast<int>(s) / 60, static_cast<int>(s) % 60);
  else
    std::snprintf(text, sizeof text, "%d h %02d min", static_cast<int>(s / 3600),
                  static_cast<int>(s) % 3600 / 60);
  return text;
}

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (open_) std::fputc('\n', stderr);
}

void Progress::show(const std::string& line, bool keep) {
  if (quiet_) return;
  if (terminal_)
    std::fprintf(stderr, "\r\x1b[K%s%s", line.c_str(), keep ? "\n" : "");
  else
    std::fprintf(stderr, "%s\n", line.c_str());
  std::fflush(stderr);
  open_ = terminal_ && !keep;
}

void Progress::begin(std::string_view stage, std::int64_t steps) {
  stage_ = stage, steps_ = steps;
  start_ = shown_ = Clock::now();
}

void Progress::step(std::int64_t done, std::string_view detail) {
  const auto now = Clock::now();
  if (quiet_ ||
      std::chrono::duration<double>(now - shown_).count() < (terminal_ ? terminal_interval : plain_interval))
    return;
  shown_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / elapsed;
  char head[128];
  std::snprintf(head, sizeof head, " %lld/%lld  %.1f/s  ETA %s  ", static_cast<long long>(done),
                static_cast<long long>(steps_), rate,
                duration_text(static_cast<double>(steps_ - done) / rate).c_str());
  char peak[32];
  std::snprintf(peak, sizeof peak, "  peak %.1f MB", static_cast<double>(memory::peak().total) * 1e-6);
  show(stage_ + head + std::string(detail) + peak, false);
}

void Progress::end(std::string_view summary) {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  show(stage_ + ": " + std::string(summary) + " (" + duration_text(elapsed) + ")", true);
}

void Progress::note(std::string_view line) { show(std::string(line), true); }

}  // namespace costate::cli
