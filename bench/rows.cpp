// Group norm, modulated layer norm and attention, forward and gradient of the operands: milliseconds, and for the norms the
// share of memory bandwidth: bytes that must be moved (each operand and result once) over time. Prints rows of a table.
//
//   bench_rows [threads]
#include <costate/autograd/ops.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <time.h>

using namespace costate;

namespace {

int thread_count = 1;

// One thread: processor time, which other programs do not take part in; several: wall clock.
double seconds() {
  timespec t;
  clock_gettime(thread_count == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The median of 15 rounds of at least 10 ms.
double median_of(const std::function<void()>& f) {
  f();
  double start = seconds();
  int calls = 0;
  while (seconds() - start < 0.01) f(), ++calls;
  double rounds[15];
  for (double& r : rounds) {
    start = seconds();
    for (int i = 0; i < calls; ++i) f();
    r = (seconds() - start) / calls;
  }
  std::sort(std::begin(rounds), std::end(rounds));
  return rounds[7];
}

Tensor noise(const Shape& shape, std::uint32_t step) {
  const Tensor t = Tensor::empty({1, shape.numel()});
  random_normal(t, 1, Stream::user, 0, step);
  return t.reshape(shape);
}

using Function = std::function<Var(std::span<const Var>)>;

// Forward without a tape; then the sweep alone, with respect to the first `wanted` operands. A forward pass moves `arrays`
// times the bytes of x, a sweep one and a half times as many.
void report(const std::string& name, const Function& f, const std::vector<Tensor>& operands, std::size_t wanted, double flops = 0) {
  std::vector<Var> constants(operands.begin(), operands.end());
  const double forward = median_of([&] { f(constants); });
  Tape tape;
  std::vector<Var> vars = constants, wrt;
  for (std::size_t i = 0; i < wanted; ++i) vars[i] = tape.watch(operands[i]), wrt.push_back(vars[i]);
  const Var y = f(vars);
  const Tensor g = noise(y.shape(), 9);
  const double sweep = median_of([&] { tape.vjp(y, g, wrt); });
  const double bytes = static_cast<double>(operands[0].bytes());
  if (flops > 0)
    std::printf("| %s | %.3f | %.3f | %.0f, %.0f GFLOP/s |\n", name.c_str(), forward * 1e3, sweep * 1e3, flops / forward * 1e-9,
                2.5 * flops / sweep * 1e-9);
  else
    std::printf("| %s | %.3f | %.3f | %.0f, %.0f GB/s |\n", name.c_str(), forward * 1e3, sweep * 1e3, 2 * bytes / forward * 1e-9,
                3 * bytes / sweep * 1e-9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) thread_count = std::atoi(argv[1]);
  set_threads(thread_count);
  std::printf("| %d thread(s) | forward, ms | gradient, ms | rate |\n| --- | --- | --- | --- |\n", thread_count);
  for (const auto& [n, side, c] : {std::array<std::int64_t, 3>{16, 28, 64}, {16, 14, 128}, {16, 7, 256}, {4, 64, 128}}) {
    const std::vector<Tensor> image{noise({n, side, side, c}, 0), noise({c}, 1), noise({c}, 2)};
    const std::string size = std::to_string(n) + " x " + std::to_string(side) + " x " + std::to_string(side) + " x " + std::to_string(c);
    report("group norm, SiLU, " + size,
           [](auto x) { return group_norm(x[0], x[1], x[2], 32, 1e-5, Activation::silu); }, image, 1);
  }
  for (const auto& [n, t, d] : {std::array<std::int64_t, 3>{32, 16, 384}, {32, 49, 384}, {32, 196, 384}})
    report("modulated layer norm, " + std::to_string(n) + " x " + std::to_string(t) + " x " + std::to_string(d),
           [](auto x) { return modulated_layer_norm(x[0], x[1], x[2], 1e-6); },
           {noise({n, t, d}, 0), noise({n, d}, 1), noise({n, d}, 2)}, 1);
  struct Size {
    std::int64_t n, t, heads, width;
  };
  for (const Size& s : {Size{32, 16, 6, 64}, {32, 49, 6, 64}, {32, 196, 6, 64}, {32, 256, 16, 16}, {16, 49, 4, 32}, {16, 49, 1, 256}}) {
    const Shape shape{s.n, s.t, s.heads * s.width};
    report("attention, batch " + std::to_string(s.n) + ", " + std::to_string(s.t) + " tokens, " + std::to_string(s.heads) + " heads of " +
               std::to_string(s.width),
           [&](auto x) { return attention(x[0], x[1], x[2], static_cast<int>(s.heads)); },
           {noise(shape, 0), noise(shape, 1), noise(shape, 2)}, 3,
           4.0 * static_cast<double>(s.n * s.heads * s.t * s.t * s.width));
  }
}
