#include <costate/finetune/problem/analytic_field.h>

#include <algorithm>

namespace costate::finetune {
namespace {

// `one_time(t)` when all rows have the same time, else `each_time(span)`.
template <class T, class Body>
void with_times(const Tensor& t, const Body& body) {
  const Tensor on_host = t.to(Device::cpu);
  const auto times = on_host.values<T>();
  const bool same = std::all_of(times.begin(), times.end(), [&](T v) { return v == times[0]; });
  body(same ? Times(static_cast<double>(times[0])) : Times(times));
}

}  // namespace

sde::Field velocity_field(std::shared_ptr<const GaussianMixture> mixture, const sde::Schedule& schedule) {
  const CustomRule rule{
      "mixture velocity",
      [mixture, schedule](std::span<const Tensor> in) {
        const Tensor& x = in[0];
        require(x.rank() == 2 && x.extent(1) == mixture->dim() && in[1].shape() == Shape{x.extent(0)} && x.extent(0) > 0,
                "mixture velocity: x has shape ", x.shape(), " and t ", in[1].shape(), "; expected (rows, ", mixture->dim(),
                ") and (rows,)");
        if (x.is_meta()) return Tensor::empty_like(x);
        const Tensor at = x.to(Device::cpu);
        Tensor out = Tensor::empty_like(at);
        const auto run = [&](auto zero) {
          using T = decltype(zero);
          with_times<T>(in[1], [&](Times t) {
            mixture->velocity(schedule, x.extent(0), at.values<T>().data(), t, out.mutate<T>().data());
          });
        };
        x.dtype() == DType::f32 ? run(0.f) : run(0.0);
        return out.to(x.device());
      },
      [mixture, schedule](const Tensor& cotangent, std::span<const Tensor> in, const Tensor&) {
        const Tensor& x = in[0];
        if (x.is_meta()) return std::vector<Tensor>{Tensor::empty_like(x), Tensor()};
        const Tensor at = x.to(Device::cpu), g = cotangent.to(Device::cpu);
        Tensor out = Tensor::empty_like(at);
        const auto run = [&](auto zero) {
          using T = decltype(zero);
          with_times<T>(in[1], [&](Times t) {
            mixture->velocity_vjp(schedule, x.extent(0), at.values<T>().data(), t, g.values<T>().data(),
                                  out.mutate<T>().data());
          });
        };
        x.dtype() == DType::f32 ? run(0.f) : run(0.0);
        return std::vector<Tensor>{out.to(x.device()), Tensor()};
      }};
  return [rule](const Var& x, const Var& t, const Tensor&) {
    require(!t.tracked(), "mixture velocity: derivatives with respect to time are not offered");
    const Var in[] = {x, t};
    return custom(rule, in);
  };
}

}  // namespace costate::finetune
