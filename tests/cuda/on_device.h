// The device that these tests compare with the cpu: COSTATE_DEVICE=cuda:0 in the environment, else the emulator, whose
// kernels run in three orders of their threads and blocks.
#pragma once
#include <costate/tensor/backend.h>
#include <costate/tensor/random.h>
#include <costate/tensor/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace costate {

using Tensors = std::vector<Tensor>;

inline bool emulated() {
  static const bool yes = [] {
    const char* wished = std::getenv("COSTATE_DEVICE");
    if (wished && *wished && std::string(wished) != "cpu") return false;
    setenv("COSTATE_CUDA_PLUGIN", COSTATE_EMULATED_PLUGIN, 1);
    setenv("COSTATE_EMULATED_MEMORY", "16777216", 1);  // 16 MiB: soon used up
    return true;
  }();
  return yes;
}
inline Device device() {
  static const Device d = emulated() ? Device::cuda(0) : device_named(std::getenv("COSTATE_DEVICE"), "COSTATE_DEVICE");
  return d;
}

// Calls run() once for each order of the emulator's threads, once on a device; what is returned must have the same bits.
inline std::vector<Tensor> in_every_order(const std::function<std::vector<Tensor>()>& run) {
  std::vector<Tensor> first;
  for (const char* order : {"forward", "reverse", "shuffled"}) {
    setenv("COSTATE_EMULATED_ORDER", order, 1);
    std::vector<Tensor> results;
    for (const Tensor& t : run()) results.push_back(t.to(Device::cpu));
    if (first.empty()) {
      first = results;
      continue;
    }
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_EQ(std::memcmp(first[i].raw(), results[i].raw(), static_cast<std::size_t>(first[i].bytes())), 0)
          << "result " << i << " depends on the order: " << order;
  }
  setenv("COSTATE_EMULATED_ORDER", "forward", 1);
  return first;
}

// What was never written is NaN.
inline Tensor unwritten(const Shape& shape, DType dtype, Device device) {
  return Tensor::full(shape, std::numeric_limits<double>::quiet_NaN(), dtype, device);
}

inline Tensor noise(const Shape& shape, DType dtype, Device device, std::uint32_t step) {
  const Tensor t = Tensor::empty({1, shape.numel()}, dtype);
  random_normal(t, 17, Stream::user, 0, step);
  return t.reshape(shape).to(device);
}

// Results differ by the order of sums and the exponentials of two libraries: multiples of the unit roundoff. A sum of n terms
// of size 1 errs by about sqrt(n) of it.
inline double rounding(DType dtype, std::int64_t n = 1) {
  return (dtype == DType::f64 ? 4e-15 : 1e-6) * std::sqrt(static_cast<double>(n < 1 ? 1 : n));
}

// The two agree to `tolerance` of the largest element.
inline void expect_near(const Tensor& a, const Tensor& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.shape(), b.shape()) << what;
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double largest = 1;
  for (const double v : x)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(std::abs(x[i] - y[i]) <= tolerance * largest) && !(std::isnan(x[i]) && std::isnan(y[i])))
      FAIL() << what << ": element " << i << " is " << y[i] << ", the cpu's " << x[i];
}

// run(device) on the cpu and on the device, in every order.
inline void compare(const std::function<std::vector<Tensor>(Device)>& run, double tolerance, const std::string& what) {
  const std::vector<Tensor> expected = run(Device::cpu), found = in_every_order([&] { return run(device()); });
  ASSERT_EQ(expected.size(), found.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    expect_near(expected[i], found[i], tolerance, what + ", result " + std::to_string(i));
}

}  // namespace costate
