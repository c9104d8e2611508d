#include <costate/autograd/ops.h>
#include <costate/finetune/reward/features.h>
#include <costate/finetune/reward/proxy.h>

#include <cmath>

namespace costate::finetune {

Reward sum_reward(std::vector<WeightedReward> terms) {
  require(!terms.empty(), "sum of rewards: there is no term");
  Reward out;
  bool differentiable = true;
  for (const WeightedReward& t : terms) {
    require(t.reward.defined(), "sum of rewards: the term '", t.reward.name, "' is empty");
    require(std::isfinite(t.weight), "sum of rewards: the weight of '", t.reward.name, "' is ", t.weight,
            ", expected a number");
    out.name += (out.name.empty() ? "" : " + ") + sentence({t.weight, " "}) + t.reward.name;
    differentiable = differentiable && t.reward.differentiable();
  }
  const auto evaluate = [terms = std::move(terms)](const Var& x, const auto& value) {
    Var s = affine(value(terms[0].reward, x), terms[0].weight, 0.0);
    for (std::size_t i = 1; i < terms.size(); ++i) s = axpby(1.0, s, terms[i].weight, value(terms[i].reward, x));
    return s;
  };
  if (differentiable)
    out.value = [evaluate](const Var& x) { return evaluate(x, [](const Reward& r, const Var& y) { return r.value(y); }); };
  else
    out.black_box = [evaluate](const Tensor& x) {
      return evaluate(Var(x), [](const Reward& r, const Var& y) { return Var(r(y.value())); }).value();
    };
  return out;
}

Reward bump_reward(std::vector<double> centre, double width, double amount) {
  require(!centre.empty(), "bump reward: the centre has no coordinates");
  require(std::isfinite(width) && width > 0, "bump reward: the width is ", width, ", expected a positive number");
  require(std::isfinite(amount), "bump reward: the amount is ", amount, ", expected a number");
  return {"bump", [centre = std::move(centre), width, amount](const Var& x) {
            const Var y = features(x, centre.size(), "bump");
            const Var d = sub(y, constant_like(centre, {1, y.extent(1)}, y));
            return affine(exp(affine(sum(square(d), 1), -0.5 / (width * width), 0.0)), amount, 0.0);
          }};
}

Reward proxy_reward(const Reward& gold, std::vector<double> centre, double width, double amount) {
  Reward out = sum_reward({{1.0, gold}, {1.0, bump_reward(std::move(centre), width, amount)}});
  out.name = gold.name + " with a bump";
  return out;
}

}  // namespace costate::finetune
