#include <costate/autograd/ops.h>
#include <costate/finetune/reward/ensemble.h>

#include <cmath>

namespace costate::finetune {
namespace {

Var combined(const std::vector<Var>& r, EnsembleRule rule, double c) {
  Var first = r[0];
  for (std::size_t i = 1; i < r.size(); ++i) first = rule == EnsembleRule::minimum ? minimum(first, r[i]) : add(first, r[i]);
  if (rule == EnsembleRule::minimum) return first;
  const double share = 1.0 / static_cast<double>(r.size());
  const Var mean = affine(first, share, 0.0);
  if (rule == EnsembleRule::mean) return mean;
  Var squares = square(sub(r[0], mean));
  for (std::size_t i = 1; i < r.size(); ++i) squares = add(squares, square(sub(r[i], mean)));
  // Where all agree the root of the variance has no derivative; with 1e-12 it is zero, as it should be.
  return axpby(1.0, mean, -c, sqrt(affine(squares, share, 1e-12)));
}

}  // namespace

Reward ensemble_reward(std::vector<Reward> members, EnsembleRule rule, double c) {
  require(members.size() >= 2, "ensemble reward: found ", members.size(), " members, expected at least two");
  require(std::isfinite(c) && c >= 0, "ensemble reward: the coefficient of the deviation is ", c, ", expected at least 0");
  Reward out;
  out.name = "ensemble of " + members[0].name;
  bool differentiable = true;
  for (const Reward& r : members) {
    require(r.defined(), "ensemble reward: the member '", r.name, "' is empty");
    differentiable = differentiable && r.differentiable();
  }
  const auto evaluate = [members = std::move(members), rule, c](const Var& x, const auto& value) {
    std::vector<Var> values;
    for (const Reward& r : members) values.push_back(value(r, x));
    return combined(values, rule, c);
  };
  if (differentiable)
    out.value = [evaluate](const Var& x) { return evaluate(x, [](const Reward& r, const Var& y) { return r.value(y); }); };
  else
    out.black_box = [evaluate](const Tensor& x) {
      return evaluate(Var(x), [](const Reward& r, const Var& y) { return Var(r(y.value())); }).value();
    };
  return out;
}

}  // namespace costate::finetune
