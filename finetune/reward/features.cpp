#include <costate/autograd/ops.h>
#include <costate/finetune/reward/features.h>

namespace costate::finetune {

Var features(const Var& x, std::size_t dim, std::string_view name) {
  require(x.extent(0) > 0 && x.numel() == x.extent(0) * static_cast<std::int64_t>(dim), name, " reward: x has shape ",
          x.shape(), "; expected rows of ", dim, " features");
  return reshape(x, {x.extent(0), static_cast<std::int64_t>(dim)});
}

Var constant_like(const std::vector<double>& values, const Shape& shape, const Var& like) {
  return Var(Tensor::from(values, shape, like.device()).to(like.dtype()));
}

Var with_given_gradient(const std::string& name, const Var& x, const ValueWithGradient& compute) {
  const auto gradient = std::make_shared<Tensor>();
  const CustomRule rule{name,
                        [&compute, gradient](std::span<const Tensor> in) {
                          const Tensor& given = in[0];
                          const Device host = given.is_meta() ? Device::meta : Device::cpu;
                          Tensor value = Tensor::zeros({given.extent(0)}, DType::f32, host);
                          *gradient = Tensor::zeros(given.shape(), DType::f32, host);
                          if (!given.is_meta()) compute(given.to(host), value, *gradient);
                          *gradient = gradient->to(given.device());
                          return value.to(given.dtype()).to(given.device());
                        },
                        [gradient](const Tensor& cotangent, std::span<const Tensor> in, const Tensor&) {
                          const std::int64_t rows = in[0].extent(0);
                          const Var g = reshape(Var(gradient->to(in[0].dtype())), {rows, -1});
                          return std::vector<Tensor>{mul(g, Var(cotangent.reshape({rows, 1}))).value().reshape(in[0].shape())};
                        }};
  return custom(rule, {&x, 1});
}

}  // namespace costate::finetune
