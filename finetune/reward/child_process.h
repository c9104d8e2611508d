// A child process behind two pipes, with deadlines: for POSIX systems.
#pragma once
#include <chrono>
#include <span>
#include <string>
#include <vector>

namespace costate::finetune {

class ChildProcess {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // Starts it in a process group of its own, with this process's standard error. Throws Error(Fault::io).
  explicit ChildProcess(const std::vector<std::string>& command);
  // Closes its input, gives it a moment to end, and kills what is left of its group.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Writes all bytes; whatever arrives meanwhile is kept for reading, so that neither side waits for the other. False when the
  // deadline passes or the child reads no more.
  bool write(std::span<const char> bytes, Deadline deadline);
  // Waits until `size` bytes have arrived that were not taken, or a line end is among them (`line`). False when the deadline
  // passes or the child's output ends first.
  bool await(std::size_t size, bool line, Deadline deadline);

  // What arrived and was not taken.
  const std::string& arrived() const { return arrived_; }
  std::string take(std::size_t size);

  // "exited with status 3", "was ended by signal 9", "closed its output", "closed its input" or "still runs"; waits a
  // moment for an exit that is under way.
  std::string state();

 private:
  // Moves bytes until something happened. False at the deadline, or when nothing can happen any more.
  bool exchange(std::span<const char>& to_write, Deadline deadline);
  bool ended(std::chrono::milliseconds patience);
  void close_input();

  int pid_ = -1;
  int input_ = -1, output_ = -1;  // our ends of its standard input and output
  bool output_ended_ = false, input_refused_ = false;
  std::string arrived_;
};

}  // namespace costate::finetune
