#include <costate/autograd/ops.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/nn/embed.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

namespace costate::finetune {
namespace {

// grad r(x), (rows, dim): on the tape of x, where it is differentiated again.
Var gradient(const std::function<Var(const Var&)>& reward, const Var& x) {
  if (x.tape() != nullptr) {
    const Var total = sum(reward(x));
    return x.tape()->recorded_vjp(total, Var(Tensor::full(total.shape(), 1, x.dtype(), x.device())), {&x, 1})[0];
  }
  Tape tape;
  const Var at = tape.watch(x.value());
  return Var(std::move(tape).vjp(sum(reward(at)), at));
}

}  // namespace

Var ControlNetwork::control(const Var& x, const Var& t) const {
  require(x.rank() == 2 && x.extent(1) == options.dim && t.rank() == 1 && t.extent(0) == x.extent(0),
          "control network: x has shape ", x.shape(), " and t ", t.shape(), "; expected (rows, ", options.dim, ") and (rows,)");
  const Var time = options.time_frequencies > 0 ? nn::time_features(t, options.time_frequencies) : reshape(t, {x.extent(0), 1});
  Var powers = x;
  for (Var power = mul(x, x); powers.extent(1) < options.dim * options.state_powers; power = mul(power, x))
    powers = concat({&powers, &power}, 1);
  std::vector<Var> h{concat({&powers, &time}, 1)};
  if (options.products) {
    const std::int64_t rows = x.extent(0), p = powers.extent(1), q = time.extent(1);
    const Var products = reshape(matmul(reshape(powers, {rows, p, 1}), reshape(time, {rows, 1, q})), {rows, p * q});
    h[0] = concat({&h[0], &products}, 1);
  }
  for (const nn::Linear& layer : down) h.push_back(layer(h.back()));
  Var out = h.back();
  for (std::size_t i = up.size(); i-- > 0;) out = add(up[i](out), across[i](h[i]));
  if (gain.empty()) return out;
  return add(out, mul(gain[1](gain[0](time)), gradient(options.reward, x)));
}

ControlNetwork make_control_network(sde::Field base, const ControlNetworkOptions& o, nn::Init& init) {
  require(static_cast<bool>(base), "control network: there is no base field");
  require(
      o.dim >= 1 && !o.hidden.empty() && std::all_of(o.hidden.begin(), o.hidden.end(), [](std::int64_t n) { return n >= 1; }),
      "control network: the dimension is ", o.dim, " and there are ", o.hidden.size(),
      " hidden layers; the dimension and every width must be at least 1, and there must be a hidden layer");
  require(o.time_frequencies >= 0, "control network: time_frequencies is ", o.time_frequencies, ", expected at least 0");
  require(o.state_powers >= 1, "control network: state_powers is ", o.state_powers, ", expected at least 1");
  ControlNetwork n{std::move(base), o, {}, {}, {}, {}};
  const std::int64_t times = o.time_frequencies > 0 ? 2 * o.time_frequencies : 1, powers = o.dim * o.state_powers;
  std::vector<std::int64_t> width{powers + times + (o.products ? powers * times : 0)};
  width.insert(width.end(), o.hidden.begin(), o.hidden.end());
  const double gain = std::sqrt(2.0);  // keeps the scale through rectifiers
  for (std::size_t i = 0; i + 1 < width.size(); ++i)
    n.down.push_back(nn::make_linear(init, width[i], width[i + 1], o.activation, gain));
  n.up.push_back({Var(init.zeros({o.dim, width[1]})), Var(init.zeros({o.dim}))});
  n.across.push_back({Var(init.zeros({o.dim, width[0]})), Var(init.zeros({o.dim}))});
  for (std::size_t i = 1; i + 1 < width.size(); ++i) {
    n.up.push_back(nn::make_linear(init, width[i + 1], width[i], o.activation, gain));
    n.across.push_back(nn::make_linear(init, width[i], width[i]));
  }
  if (o.reward) {
    n.gain.push_back(nn::make_linear(init, times, o.hidden.back(), Activation::silu, gain));
    n.gain.push_back({Var(init.zeros({o.dim, o.hidden.back()})), Var(init.zeros({o.dim}))});
  }
  return n;
}

}  // namespace costate::finetune
