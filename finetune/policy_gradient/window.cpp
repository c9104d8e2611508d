#include <costate/finetune/policy_gradient/window.h>

#include <costate/tensor/error.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

using Kind = WindowOptions::Kind;
constexpr std::uint32_t window_element = 1u << 20;  // choices of train_steps take the elements below

int uniform_in(const StepRange& range, const Philox& philox, std::uint64_t n) {
  return range.first +
         static_cast<int>(philox.below(static_cast<std::uint32_t>(range.last - range.first + 1), n, 0, window_element));
}

}  // namespace

StepRange equal_part(int steps, int count, int part) {
  return {steps * part / count, steps * (part + 1) / count - 1};
}

void check_window(const WindowOptions& o, int steps) {
  require(o.iterations >= 1, "window: iterations is ", o.iterations, ", expected at least 1");
  if (o.kind == Kind::segments || o.kind == Kind::dynamic)
    require(o.count >= 1 && o.count <= steps, "window: ", o.count, " parts of a chain of ", steps, " steps");
  if (o.kind == Kind::annealed)
    require(o.low >= 1 && o.low <= (o.high ? o.high : steps) && o.high <= steps && o.deviation >= 0 && o.centre >= 0,
            "window: low ", o.low, ", high ", o.high, ", centre ", o.centre, ", deviation ", o.deviation,
            " do not fit a chain of ", steps, " steps");
  if (o.kind == Kind::dynamic)
    require(o.every >= 1 && o.probes >= 1 && o.penalty >= 0, "window: every ", o.every, ", probes ", o.probes, ", penalty ",
            o.penalty, " are out of range");
  if (o.kind != Kind::clusters) return;
  std::int64_t total = 0;
  for (const auto& c : o.clusters) {
    require(0 <= c.first && c.first <= c.last && c.last < steps && c.iterations >= 0, "window: the cluster of steps ", c.first,
            " to ", c.last, " for ", c.iterations, " iterations does not fit a chain of ", steps, " steps");
    total += c.iterations;
  }
  require(total == o.iterations, "window: the clusters last ", total, " iterations together; the run has ", o.iterations);
}

int draw_first_step(const WindowOptions& o, int steps, std::int64_t iteration, std::uint64_t seed, int part) {
  const Philox philox{seed, Stream::subset};
  const auto n = static_cast<std::uint64_t>(iteration);
  const double share = std::min(1.0, static_cast<double>(iteration) / static_cast<double>(o.iterations));
  switch (o.kind) {
    case Kind::full:
      return 0;
    case Kind::annealed: {
      const int high = o.high ? o.high : steps;
      int remaining = uniform_in({o.low, high}, philox, n);
      if (philox.uniform(n, 0, window_element + 1) < share) {
        const double centre = o.centre > 0 ? o.centre : 0.75 * steps, deviation = o.deviation > 0 ? o.deviation : steps;
        remaining = static_cast<int>(std::lround(std::clamp(centre + deviation * philox.normal(n, 1, window_element), 1.0,
                                                            static_cast<double>(steps))));
      }
      return steps - remaining;
    }
    case Kind::segments:
      return uniform_in(equal_part(steps, o.count, std::min(o.count - 1, static_cast<int>(share * o.count))), philox, n);
    case Kind::clusters: {
      std::int64_t end = 0;
      StepRange range{0, steps - 1};
      for (const auto& c : o.clusters) {
        if (c.iterations == 0) continue;
        range = {c.first, c.last};
        if (iteration < (end += c.iterations)) break;
      }
      return uniform_in(range, philox, n);
    }
    case Kind::dynamic:
      return uniform_in(equal_part(steps, o.count, part), philox, n);
  }
  return 0;
}

int earliest_first_step(const WindowOptions& o, int steps) {
  if (o.kind != Kind::clusters) return 0;
  int first = steps;
  for (const auto& c : o.clusters)
    if (c.iterations > 0) first = std::min(first, c.first);
  return first;
}

}  // namespace costate::finetune
