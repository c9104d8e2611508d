// How much of the processor's arithmetic do matrix products use? GFLOP/s (two a multiply-add) on one thread,
// for every instruction set of this machine, and the share of a peak measured with multiply-adds that never
// leave registers.
#include <benchmark/benchmark.h>
#include <costate/tensor/tensor.h>

#include <ctime>
#include <string>
#include <vector>

namespace costate {
namespace {

#if defined(__x86_64__)
// Twelve independent chains of f32 multiply-adds on 32-byte vectors hide a latency of up to six cycles at two
// a cycle. (Machines with two 64-byte units have twice this peak.) The thread's own clock: waiting does not
// count.
double thread_seconds() {
  std::timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
__attribute__((target("avx2,fma"))) double peak_gflops() {
  typedef float V __attribute__((vector_size(32)));
  constexpr int chains = 12, rounds = 4000000;
  const V scale = V{} + 0.999999f, shift = V{} + 1e-6f;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    V x[chains];
    for (V& v : x) v = shift;
    const double start = thread_seconds();
    for (int i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
      for (V& v : x) v = v * scale + shift;
    }
    const double seconds = thread_seconds() - start;
    for (V& v : x) benchmark::DoNotOptimize(v);
    const double gflops = 2.0 * 8 * chains * rounds / seconds * 1e-9;
    if (gflops > best) best = gflops;
  }
  return best;
}
double peak() {
  static const double measured =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? peak_gflops() : 0;
  return measured;
}
#else
double peak() { return 0; }
#endif

struct Question {
  const char* name;
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, packed;
  Activation activation;
  bool derivative;
};
const Question questions[] = {
    {"tiny 4x4x4", 4, 4, 4, false, false, false, Activation::none, false},
    {"square 64", 64, 64, 64, false, false, false, Activation::none, false},
    {"square 64 NT", 64, 64, 64, false, true, false, Activation::none, false},
    {"square 64 NT packed", 64, 64, 64, false, true, true, Activation::none, false},
    {"square 64 NT packed, bias, silu", 64, 64, 64, false, true, true, Activation::silu, false},
    {"square 64 NT packed, bias, silu and derivative", 64, 64, 64, false, true, true, Activation::silu, true},
    {"square 64 NT packed, bias, gelu and derivative", 64, 64, 64, false, true, true, Activation::gelu_tanh,
     true},
    {"first layer 64x64x3 NT packed", 64, 64, 3, false, true, true, Activation::none, false},
    {"first layer 64x64x3 NT packed, bias, silu", 64, 64, 3, false, true, true, Activation::silu, false},
    {"velocity head 64x2x64 NT packed", 64, 2, 64, false, true, true, Activation::none, false},
    {"velocity head 256x2x256 NT", 256, 2, 256, false, true, false, Activation::none, false},
    {"one row 1x256x256 NN", 1, 256, 256, false, false, false, Activation::none, false},
    {"one row 1x256x256 NT packed", 1, 256, 256, false, true, true, Activation::none, false},
    {"square 256 NT packed", 256, 256, 256, false, true, true, Activation::none, false},
    {"square 256 NT packed, bias, silu and derivative", 256, 256, 256, false, true, true, Activation::silu,
     true},
    {"square 256 NT", 256, 256, 256, false, true, false, Activation::none, false},
    {"square 256 NN", 256, 256, 256, false, false, false, Activation::none, false},
    {"square 256 TN", 256, 256, 256, true, false, false, Activation::none, false},
    {"square 1024 NN", 1024, 1024, 1024, false, false, false, Activation::none, false},
    {"transformer 256x1536x384 NT packed", 256, 1536, 384, false, true, true, Activation::none, false},
    {"transformer 256x384x1536 NT packed", 256, 384, 1536, false, true, true, Activation::none, false},
};

template <class T>
void measure(benchmark::State& state, const Kernels& table, const Question& q) {
  const std::vector<T> a(q.m * q.k, T(0.5)), b(q.n * q.k, T(0.25)), bias(q.n, T(0.1));
  std::vector<T> c(q.m * q.n), derivative(q.m * q.n);
  MatmulCall call{};
  call.dtype = dtype_of<T>;
  call.transpose_a = q.transpose_a, call.transpose_b = q.transpose_b;
  call.m = q.m, call.n = q.n, call.k = q.k;
  call.a = a.data(), call.b = b.data(), call.c = c.data();
  call.activation = q.activation;
  if (q.activation != Activation::none) call.bias = bias.data();
  if (q.derivative) call.derivative = derivative.data();
  const std::int64_t bytes = q.packed ? table.packed_bytes(call.dtype, q.n, q.k) : 0;
  std::vector<std::byte> packed(bytes);
  if (bytes > 0)
    table.pack_b(call.dtype, q.transpose_b, q.n, q.k, b.data(), packed.data()), call.packed_b = packed.data();
  for (auto _ : state) {
    table.matmul(call);
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * q.m * q.n * q.k * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsRate);
  const double of_peak = peak() / (sizeof(T) / 4);
  if (of_peak > 0)
    state.counters["% of peak"] =
        benchmark::Counter(100 * flops * 1e-9 / of_peak, benchmark::Counter::kIsRate);
}

}  // namespace
}  // namespace costate

int main(int argc, char** argv) {
  using namespace costate;
  for (const Kernels* table : cpu_tables())
    for (const Question& q : questions) {
      const std::string place = std::string(table->name) + "/";
      benchmark::RegisterBenchmark((place + "f32/" + q.name).c_str(),
                                   [=](benchmark::State& s) { measure<float>(s, *table, q); });
      if (q.activation == Activation::none)
        benchmark::RegisterBenchmark((place + "f64/" + q.name).c_str(),
                                     [=](benchmark::State& s) { measure<double>(s, *table, q); });
    }
  benchmark::Initialize(&argc, argv);
  if (peak() > 0) benchmark::AddCustomContext("peak", std::to_string(peak()) + " GFLOP/s in f32");
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
