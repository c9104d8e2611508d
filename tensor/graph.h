// Work of a cuda device that is recorded once and launched again as one: what a loop's iterations have in common.
//
//   Graph graph(device);
//   for (...) { write the inputs; graph.run(first_sample, body); read the results; }
//
// The first run calls `body` as ever, with the graph's own memory for what it allocates (the rehearsal); the second records
// what it launches, and launches that; later ones launch it again without calling `body`. So everything that differs from one run
// to the next must be in the device's memory, at the same addresses, when the graph is launched: `body` reads tensors that
// its caller keeps, and leaves its results in such. Numbers that `body` passes to kernels are those of the second run for
// ever, but for the noise: samples are counted from the `first_sample` of each run.
//
// What cannot be recorded (numbers that the host reads, a wait, more memory than the rehearsal took) is no error: `body` is
// called as ever in that run and all later ones, and `refusal` says why.
//
// Every run counts the operations (tensor/flops.h) that the rehearsal did.
#pragma once
#include <costate/tensor/storage.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace costate {

class Graph {
 public:
  // Throws Error(argument) unless `device` is a cuda device.
  explicit Graph(Device device);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // `addresses`: what must be where it was for the recorded work to be that of `body`; when one has moved, the next two runs
  // rehearse and record again. Errors of `body` are the caller's in the first run; in the second the recording is
  // forgotten first.
  void run(std::uint64_t first_sample, const std::function<void()>& body, const std::vector<const void*>& addresses = {});

  enum class State : std::uint8_t { empty, rehearsed, recorded, refused };
  State state() const { return state_; }
  const std::string& refusal() const { return refusal_; }  // "": none

 private:
  void record(std::uint64_t first_sample, const std::function<void()>& body);

  Device device_;
  void* graph_ = nullptr;
  State state_ = State::empty;
  std::uint64_t first_sample_ = 0;  // of the recorded run
  std::int64_t flops_ = 0;          // of the rehearsal
  std::vector<const void*> addresses_;
  std::string refusal_;
};

}  // namespace costate
