// Progress on stderr: one line that is rewritten on a terminal, a plain line every few seconds otherwise.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace costate::cli {

class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress();  // leaves the cursor on a fresh line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin(std::string_view stage, std::int64_t steps);
  // `detail`: "loss 0.12, reward 1.3".
  void step(std::int64_t done, std::string_view detail);
  void end(std::string_view summary);
  void note(std::string_view line);

 private:
  using Clock = std::chrono::steady_clock;
  void show(const std::string& line, bool keep);
  bool quiet_, terminal_, open_ = false;
  std::string stage_;
  std::int64_t steps_ = 0;
  Clock::time_point start_, shown_;
};

std::string duration_text(double seconds);  // "4.2 s", "3 min 05 s"

}  // namespace costate::cli
