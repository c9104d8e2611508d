#include <costate/finetune/reward/callback.h>
#include <costate/finetune/reward/features.h>

namespace costate::finetune {

Reward callback_reward(std::string name, RewardCallback callback) {
  require(static_cast<bool>(callback), "reward '", name, "': the callback is empty");
  const ValueWithGradient compute = [callback = std::move(callback)](const Tensor& x, Tensor& value, Tensor& gradient) {
    callback(x.to(DType::f32).values<float>(), x.extent(0), value.mutate<float>(), gradient.mutate<float>());
  };
  return {name, [name, compute](const Var& x) { return with_given_gradient(name, x, compute); }};
}

Reward black_box_reward(std::string name, ValueCallback callback) {
  require(static_cast<bool>(callback), "reward '", name, "': the callback is empty");
  Reward r;
  r.name = std::move(name);
  r.black_box = [callback = std::move(callback)](const Tensor& x) {
    Tensor value = Tensor::zeros({x.extent(0)});
    callback(x.to(DType::f32).values<float>(), x.extent(0), value.mutate<float>());
    return value;
  };
  return r;
}

}  // namespace costate::finetune
