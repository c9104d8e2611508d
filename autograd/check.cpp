#include <costate/autograd/check.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace costate {
namespace {

using Function = std::function<Var(std::span<const Var>)>;

Tensor random_like(const Tensor& t, std::uint64_t seed, std::uint32_t step) {
  Tensor r = Tensor::empty({1, t.numel()}, t.dtype(), t.device());
  random_normal(r, seed, Stream::evaluation, 0, step);
  return r.reshape(t.shape());
}

// A scalar function of several tensors and its gradient, compared by central differences.
template <class Value>
std::string compare(const Value& value, std::span<const Tensor> inputs, std::span<const Tensor> gradients, const char* what,
                    const GradientCheck& options) {
  double largest = 1;
  for (const Tensor& g : gradients)
    for (const double v : g.values<double>()) largest = std::max(largest, std::abs(v));
  std::vector<Tensor> moved(inputs.begin(), inputs.end());
  for (std::size_t k = 0; k < inputs.size(); ++k)
    for (std::int64_t i = 0; i < inputs[k].numel(); ++i) {
      const double x = inputs[k].values<double>()[i], h = options.step * std::max(1.0, std::abs(x));
      const auto at = [&](double v) {
        moved[k] = inputs[k].clone();
        moved[k].mutate<double>()[i] = v;
        return value(moved);
      };
      const double difference = (at(x + h) - at(x - h)) / ((x + h) - (x - h));
      moved[k] = inputs[k];
      const double reverse = gradients[k].values<double>()[i];
      if (!(std::abs(reverse - difference) <= options.tolerance * largest))
        return sentence({what, " with respect to element ", i, " of input ", k, ": reverse mode gives ", reverse,
                         ", central differences ", difference});
    }
  return {};
}

}  // namespace

std::string check_gradients(const Function& f, std::span<const Tensor> inputs, int order, const GradientCheck& options) {
  require(order == 1 || order == 2, "check_gradients: order ", order, "; expected 1 or 2");
  for (const Tensor& t : inputs)
    require(t.defined() && t.dtype() == DType::f64, "check_gradients: an input is ", t.dtype(), "; expected f64");

  std::vector<Var> constants(inputs.begin(), inputs.end());
  const Tensor cotangent = random_like(f(constants).value(), options.seed, 0);
  const auto contract = [](const Var& y, const Tensor& c) { return sum(mul(y, Var(c))); };

  const auto gradients_at = [&](std::span<const Tensor> at) {
    Tape tape;
    std::vector<Var> vars;
    for (const Tensor& t : at) vars.push_back(tape.watch(t));
    const Var y = f(vars);
    auto first = tape.vjp(y, cotangent, vars);
    const auto again = std::move(tape).vjp(y, cotangent, vars);
    for (std::size_t k = 0; k < first.size(); ++k)
      require(std::memcmp(first[k].raw(), again[k].raw(), static_cast<std::size_t>(first[k].bytes())) == 0,
              "check_gradients: two sweeps of one tape gave different bits for input ", k);
    return first;
  };
  const auto value = [&](std::span<const Tensor> at) {
    std::vector<Var> vars(at.begin(), at.end());
    return contract(f(vars), cotangent).value().item();
  };
  const auto first = gradients_at(inputs);
  if (std::string s = compare(value, inputs, first, "first derivative", options); !s.empty() || order == 1) return s;

  std::vector<Tensor> directions;
  for (std::size_t k = 0; k < inputs.size(); ++k)
    directions.push_back(random_like(inputs[k], options.seed, static_cast<std::uint32_t>(k + 1)));
  const auto slope = [&](std::span<const Tensor> at) {  // <directions, gradient>
    const auto g = gradients_at(at);
    double s = 0;
    for (std::size_t k = 0; k < g.size(); ++k)
      for (std::int64_t i = 0; i < g[k].numel(); ++i) s += g[k].values<double>()[i] * directions[k].values<double>()[i];
    return s;
  };
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& t : inputs) vars.push_back(tape.watch(t));
  const Var y = f(vars);
  const auto recorded = tape.recorded_vjp(y, Var(cotangent), vars);
  Var total = contract(recorded[0], directions[0]);
  for (std::size_t k = 1; k < recorded.size(); ++k) total = add(total, contract(recorded[k], directions[k]));
  const auto second = tape.vjp(total, vars);
  return compare(slope, inputs, second, "second derivative", options);
}

}  // namespace costate
