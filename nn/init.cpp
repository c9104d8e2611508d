#include <costate/nn/init.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/random.h>

#include <cmath>

namespace costate::nn {

Tensor Init::draw(const Shape& shape, bool normal, double scale, double shift) {
  const memory::TagScope scope(memory::Tag::parameters);
  const Tensor t = Tensor::empty(shape.with_front(1), dtype_, device_);
  if (normal)
    random_normal(t, seed_, Stream::parameters, 0, next_++);
  else
    random_uniform(t, seed_, Stream::parameters, 0, next_++);
  return affine(Var(t), scale, shift).value().reshape(shape);
}

Tensor Init::uniform(const Shape& shape, std::int64_t fan_in, double gain) {
  require(fan_in > 0, "init: fan-in ", fan_in, " is not positive");
  const double bound = gain * std::sqrt(3.0 / static_cast<double>(fan_in));
  return draw(shape, false, 2 * bound, -bound);
}
Tensor Init::normal(const Shape& shape, double std) { return draw(shape, true, std, 0.0); }
Tensor Init::full(const Shape& shape, double value) {
  const memory::TagScope scope(memory::Tag::parameters);
  return Tensor::full(shape, value, dtype_, device_);
}

}  // namespace costate::nn
