// Which steps of a path are trained: all, or those from a step i on that a schedule of windows draws once an iteration
// (hierarchical reward fine-tuning, arXiv 2410.08315). Early steps fix coarse content; a policy that is trained on late ones
// only cannot move it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

struct WindowOptions {
  enum class Kind : std::uint8_t {
    full,      // i = 0
    annealed,  // steps that remain, K - i: with probability 1 - g uniform from `low` to `high`, else normal about `centre` with
               // deviation `deviation`, rounded, cut to 1..K; g grows from 0 to 1 over the run
    segments,  // the chain in `count` equal parts, each for an equal part of the run, first to last; i is uniform in it
    clusters,  // the same with parts and durations of one's own
    dynamic,   // `count` equal parts; the part in force is chosen anew every `every` iterations (see PolicyGradient)
  } kind = Kind::full;
  std::int64_t iterations = 1;  // of the run
  int count = 5;                // segments, dynamic
  int low = 1, high = 0;        // annealed; high 0: K
  double centre = 0, deviation = 0;  // annealed; 0: 3 K/4 and K
  struct Cluster {
    int first, last;          // steps, both included
    std::int64_t iterations;  // 0: passed over
  };
  std::vector<Cluster> clusters{};

  // Every member of a group starts from one sample of the policy that was noised again, independently, to the level of
  // step i: x_i = alpha(t_i) x_K + beta(t_i) e. Otherwise paths start from noise.
  bool siblings = false;

  // dynamic: candidates are compared on `probes` samples of the policy each; what counts is the mean of
  // lambda (r(x') - r(x)) - penalty (1 - cos(x, x')) for samples x and what the policy makes of x noised to the part's
  // first step.
  int every = 10;
  std::int64_t probes = 32;
  double penalty = 1.0;
};

// First and last step (both included) of part `part` of `count` equal parts of K steps.
struct StepRange {
  int first, last;
};
StepRange equal_part(int steps, int count, int part);

// Throws Error(argument) unless the windows fit a chain of so many steps.
void check_window(const WindowOptions& options, int steps);

// i of this iteration (`part`: dynamic only, the part in force), drawn by counter (seed, Stream::subset).
int draw_first_step(const WindowOptions& options, int steps, std::int64_t iteration, std::uint64_t seed, int part = 0);

// The smallest i that can be drawn: the longest window, for those who plan memory.
int earliest_first_step(const WindowOptions& options, int steps);

}  // namespace costate::finetune
