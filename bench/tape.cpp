// What the tape costs: products of four-element tensors, so small that nothing but bookkeeping is measured. Every row
// reports nanoseconds an op (counter ns/op). bench/peers holds the same chain in PyTorch.
#include <benchmark/benchmark.h>
#include <costate/autograd/ops.h>

namespace {

using namespace costate;

constexpr int ops = 100;

void report(benchmark::State& state) {
  // Inverted rate: seconds an op, printed with its unit (20n = 20 ns).
  state.counters["time/op"] = benchmark::Counter(
      static_cast<double>(ops), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

Var chain(const Var& x, const Var& w) {
  Var y = x;
  for (int i = 0; i < ops; ++i) y = mul(y, w);
  return y;
}

const Tensor& start() {
  static const Tensor t = Tensor::full({4}, 1.0);
  return t;
}

// Nothing is watched: the kernel, its allocation and the dispatch.
void constants(benchmark::State& state) {
  const Var x(start()), w(start().clone());
  for (auto _ : state) benchmark::DoNotOptimize(chain(x, w));
  report(state);
}

// Recorded, and the tape dropped.
void forward(benchmark::State& state) {
  for (auto _ : state) {
    Tape tape;
    benchmark::DoNotOptimize(chain(tape.watch(start()), Var(start())));
  }
  report(state);
}

// Recorded and swept, with respect to the first factor alone.
void forward_and_backward(benchmark::State& state) {
  for (auto _ : state) {
    Tape tape;
    const Var x = tape.watch(start());
    const Var y = chain(x, Var(start()));
    benchmark::DoNotOptimize(std::move(tape).vjp(y, start(), {&x, 1}));
  }
  report(state);
}

// The same with respect to both factors: two products and a sum in every step of the sweep.
void forward_and_backward_of_both(benchmark::State& state) {
  for (auto _ : state) {
    Tape tape;
    const Var wrt[] = {tape.watch(start()), tape.watch(start())};
    const Var y = chain(wrt[0], wrt[1]);
    benchmark::DoNotOptimize(std::move(tape).vjp(y, start(), wrt));
  }
  report(state);
}

BENCHMARK(constants);
BENCHMARK(forward);
BENCHMARK(forward_and_backward);
BENCHMARK(forward_and_backward_of_both);

}  // namespace

BENCHMARK_MAIN();
