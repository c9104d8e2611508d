// Initial parameters, each a pure function of (seed, number of the parameter): adding a layer does not change
// the ones before it, and the device and the number of threads do not matter.
#pragma once
#include <costate/tensor/tensor.h>

namespace costate::nn {

class Init {
 public:
  explicit Init(std::uint64_t seed, DType dtype = DType::f32, Device device = Device::cpu)
      : seed_(seed), dtype_(dtype), device_(device) {}

  // Uniform with variance gain^2 / fan_in (He, Zhang, Ren, Sun 2015: gain sqrt 2 keeps the scale through
  // rectifiers).
  Tensor uniform(const Shape& shape, std::int64_t fan_in, double gain = 1.0);
  Tensor normal(const Shape& shape, double std);
  Tensor zeros(const Shape& shape) { return full(shape, 0.0); }
  Tensor full(const Shape& shape, double value);

 private:
  Tensor draw(const Shape& shape, bool normal, double scale, double shift);
  std::uint64_t seed_;
  std::uint32_t next_ = 0;
  DType dtype_;
  Device device_;
};

}  // namespace costate::nn
