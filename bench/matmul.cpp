// How much of the processor's arithmetic do matrix products use? GFLOP/s (two a multiply-add) on one thread,
// for every instruction set of this machine, and the share of a peak measured with multiply-adds that never
// leave registers. --threads=N: on N threads, by the wall clock. The peak is that of f32, also for bf16.
#include <benchmark/benchmark.h>
#include <costate/tensor/parallel.h>
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

// The products of a transformer of width 384 on 32 samples of 49 tokens, its time embedding (32 rows), and the 1x1
// products and weight gradients of a convolutional network: forward (NT, weights packed), data gradient (NN, packed; of an
// activation: scaled), weight gradient (TN, with the bias gradient).
struct Layer {
  const char* name;
  std::int64_t rows, out, in;
};
const Layer layers[] = {{"qkv", 1568, 1152, 384},       {"proj", 1568, 384, 384},
                        {"fc1", 1568, 1536, 384},       {"fc2", 1568, 384, 1536},
                        {"modulation", 32, 2304, 384},  {"fc1 of 64 rows", 64, 1536, 384},
                        {"conv 1x1", 12544, 128, 192},  {"conv 1x1 narrow", 12544, 64, 64}};

struct Work {
  MatmulCall call{};
  bool pack = false, derivative = false;
};
Work work_of(const Layer& layer, int pass, Precision precision) {
  Work w;
  w.call.dtype = DType::f32, w.call.precision = precision;
  w.call.m = layer.rows, w.call.n = layer.out, w.call.k = layer.in;
  w.call.transpose_b = pass == 0, w.pack = pass < 2;
  if (pass == 0 && std::string(layer.name).find("fc1") == 0) w.call.activation = Activation::gelu_tanh, w.derivative = true;
  if (pass == 1) w.call.n = layer.in, w.call.k = layer.out, w.call.scaled = std::string(layer.name).find("fc1") == 0;
  if (pass == 2) {
    w.call.m = layer.out, w.call.n = layer.in, w.call.k = layer.rows;
    w.call.transpose_a = true, w.call.summed = true;
    w.call.scaled = std::string(layer.name).find("fc1") == 0;
  }
  return w;
}

int thread_option = 1;

template <class T>
void measure(benchmark::State& state, const Kernels& table, Work w) {
  MatmulCall& call = w.call;
  const std::vector<T> a(call.m * call.k, T(0.5)), b(call.n * call.k, T(0.25)), bias(call.n, T(0.1));
  std::vector<T> c(call.m * call.n), derivative(w.derivative ? c.size() : 0), sums(call.m);
  call.a = a.data(), call.b = b.data(), call.c = c.data();
  if (call.scaled) call.scale_a = a.data();
  if (call.summed) call.row_sums = sums.data();
  if (call.activation != Activation::none) call.bias = bias.data();
  if (w.derivative) call.derivative = derivative.data();
  const std::int64_t bytes = w.pack ? table.packed_bytes(call.dtype, call.precision, call.n, call.k) : 0;
  std::vector<std::byte> packed(bytes);
  if (bytes > 0) {
    table.pack_b(call.dtype, call.precision, call.transpose_b, call.n, call.k, b.data(), packed.data());
    call.packed = true, call.packed_b = packed.data();
  }
  set_threads(thread_option);
  const Tensor workspace = Tensor::empty({table.matmul_workspace(call) / 4 + 16});
  call.workspace = workspace.raw_mutable();
  for (auto _ : state) {
    table.matmul(call);
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(call.m * call.n * call.k) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsRate);
  const double of_peak = thread_option * peak() / (sizeof(T) / 4);
  if (of_peak > 0)
    state.counters["% of peak"] =
        benchmark::Counter(100 * flops * 1e-9 / of_peak, benchmark::Counter::kIsRate);
}

}  // namespace
}  // namespace costate

int main(int argc, char** argv) {
  using namespace costate;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--threads=", 0) != 0) continue;
    thread_option = std::stoi(word.substr(10));
    for (int j = i; j < argc; ++j) argv[j] = argv[j + 1];
    --argc;
    break;
  }
  const auto add = [](const std::string& name, auto measured) {
    auto* b = benchmark::RegisterBenchmark(name.c_str(), measured);
    if (thread_option > 1) b->UseRealTime();
  };
  for (const Kernels* table : cpu_tables()) {
    const std::string place = std::string(table->name) + "/";
    for (const Question& q : questions) {
      Work w;
      w.call.transpose_a = q.transpose_a, w.call.transpose_b = q.transpose_b;
      w.call.m = q.m, w.call.n = q.n, w.call.k = q.k;
      w.call.activation = q.activation;
      w.pack = q.packed, w.derivative = q.derivative;
      w.call.dtype = DType::f32;
      add(place + "f32/" + q.name, [=](benchmark::State& s) { measure<float>(s, *table, w); });
      if (q.activation != Activation::none) continue;
      w.call.dtype = DType::f64;
      add(place + "f64/" + q.name, [=](benchmark::State& s) { measure<double>(s, *table, w); });
    }
    for (const Layer& layer : layers)
      for (int pass = 0; pass < 3; ++pass)
        for (Precision p : {Precision::f32, Precision::bf16_products}) {
          if (p == Precision::bf16_products && !table->multiplies_bf16()) continue;
          const char* const names[] = {" NT", " dX", " dW and db"};
          const Work w = work_of(layer, pass, p);
          add(place + (p == Precision::f32 ? "f32/" : "bf16/") + layer.name + names[pass],
              [=](benchmark::State& s) { measure<float>(s, *table, w); });
        }
  }
  benchmark::Initialize(&argc, argv);
  if (peak() > 0) benchmark::AddCustomContext("peak", std::to_string(peak()) + " GFLOP/s in f32");
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
