// A foreign program that samples: a network, a chain, noise, an error that crosses the library's boundary. The same samples
// come from one call and from two halves, and with another number of threads.
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <cmath>

int main() {
  using namespace costate;
  nn::Init init(1);
  const sde::Field field = finetune::field_of(nn::make_velocity_mlp({.dim = 2, .hidden = 16, .depth = 2}, init));
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(8));
  const auto draw = [&](std::int64_t first, std::int64_t count) {
    return sde::sample(field, chain, {2}, count, {}, {.seed = 7, .first_sample = static_cast<std::uint64_t>(first)});
  };
  const Tensor whole = draw(0, 200);
  set_threads(2);
  const Tensor again = draw(0, 200), half = draw(100, 100);
  const auto x = whole.values<float>(), y = again.values<float>(), z = half.values<float>();
  if (!std::equal(x.begin(), x.end(), y.begin())) return 1;
  if (!std::equal(x.begin() + 200, x.end(), z.begin())) return 2;
  if (!std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); })) return 3;
  try {
    (void)draw(0, 0);
    return 4;
  } catch (const Error& e) {
    return e.fault() == Fault::argument ? 0 : 5;
  }
}
