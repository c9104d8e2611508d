// How long do the three passes of a convolution take, and how far are they from the exact result? Filters of
// 3 x 3, which are parameters: their layouts are cached where the kernels keep any.
//
//   bench_conv [--threads T]            a table
//   bench_conv --threads T --serve      answers lines "case pass calls" on stdin with seconds a call, for
//   compare_conv.py
//                                       beside this file, and "error case pass" with the largest error over
//                                       the largest result, against f64
// One thread is timed by the process CPU clock, more by the wall clock.
#include <costate/autograd/ops.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace costate {
namespace {

struct Case {
  const char* name;
  std::int64_t n, channels, side;
};
constexpr Case cases[] = {{"64x28", 16, 64, 28}, {"128x14", 16, 128, 14}, {"256x7", 16, 256, 7}};
constexpr const char* passes[] = {"forward", "data", "weight"};

double seconds() {
  if (threads() > 1)
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  std::timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// One pass of one case, ready to run.
class Workload {
 public:
  Workload(const Case& c, int pass, DType dtype = DType::f32) : pass_(pass) {
    const auto noise = [&](const Shape& shape, std::uint32_t which) {
      Tensor t = Tensor::empty(shape);
      random_normal(t, 1, Stream::user, 0, which);
      return t.to(dtype);
    };
    const Shape images{c.n, c.side, c.side, c.channels};
    x_ = noise(images, 0), g_ = noise(images, 1);
    const memory::TagScope scope(memory::Tag::parameters);
    w_ = noise({c.channels, 3, 3, c.channels}, 2).clone();
    const Var x = pass == 1 ? tape_.watch(x_) : Var(x_), w = pass == 2 ? tape_.watch(w_) : Var(w_);
    y_ = conv2d(x, w, Var(), same);
    wrt_ = pass == 1 ? x : w;
  }
  Tensor run() {
    if (pass_ == 0) return conv2d(x_, w_, Var(), same).value();
    return tape_.vjp(y_, g_, {&wrt_, 1})[0];
  }

 private:
  static constexpr Conv2d same{1, 1, 1, 1, 1};
  int pass_;
  Tape tape_;
  Tensor x_, g_, w_;
  Var y_, wrt_;
};

double time_of(Workload& w, int calls) {
  const double start = seconds();
  for (int i = 0; i < calls; ++i) w.run();
  return (seconds() - start) / calls;
}

double error_of(const Case& c, int pass) {
  const auto a = Workload(c, pass).run().to_doubles(), b = Workload(c, pass, DType::f64).run().to_doubles();
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    error = std::max(error, std::abs(a[i] - b[i])), largest = std::max(largest, std::abs(b[i]));
  return error / largest;
}

int find(const std::string& name, const auto& names, const auto& name_of) {
  for (int i = 0; i < static_cast<int>(std::size(names)); ++i)
    if (name_of(names[i]) == name) return i;
  throw std::runtime_error("unknown: " + name);
}
int find_case(const std::string& name) {
  return find(name, cases, [](const Case& c) { return std::string(c.name); });
}
int find_pass(const std::string& name) {
  return find(name, passes, [](const char* p) { return std::string(p); });
}

void serve() {
  std::unique_ptr<Workload> ready[std::size(cases)][std::size(passes)];
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string first, second, third;
    words >> first >> second >> third;
    if (first == "error") {
      std::cout << error_of(cases[find_case(second)], find_pass(third)) << std::endl;
      continue;
    }
    const int c = find_case(first), p = find_pass(second);
    auto& workload = ready[c][p];
    if (!workload) workload = std::make_unique<Workload>(cases[c], p);
    std::cout << time_of(*workload, std::stoi(third)) << std::endl;
  }
}

void table() {
  std::printf("%-8s %-8s %9s %9s %9s\n", "case", "pass", "ms", "GFLOP/s", "error");
  for (const Case& c : cases)
    for (int pass = 0; pass < 3; ++pass) {
      Workload w(c, pass);
      time_of(w, 2);
      std::vector<double> s;
      for (int i = 0; i < 15; ++i) s.push_back(time_of(w, 3));
      std::sort(s.begin(), s.end());
      const double flops = 2.0 * 9 * static_cast<double>(c.n * c.side * c.side * c.channels * c.channels);
      std::printf("%-8s %-8s %9.3f %9.1f %9.1e\n", c.name, passes[pass], 1e3 * s[7], 1e-9 * flops / s[7],
                  error_of(c, pass));
    }
}

}  // namespace
}  // namespace costate

int main(int argc, char** argv) {
  bool serving = false;
  try {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word == "--serve")
        serving = true;
      else if (word == "--threads" && i + 1 < argc)
        costate::set_threads(std::stoi(argv[++i]));
      else
        throw std::runtime_error("expected --threads T and --serve, found " + word);
    }
    if (serving)
      costate::serve();
    else
      costate::table();
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
  return 0;
}
