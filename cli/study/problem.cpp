#include "study/problem.h"

#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace costate::cli {
namespace {

std::vector<Tensor> all_of(const sde::Gradient& g) {
  std::vector<Tensor> all = g.parameters;
  if (g.initial.defined()) all.push_back(g.initial);
  return all;
}

}  // namespace

std::string StudyProcess::label() const {
  return (sigma > 0 ? sentence({name, ", sigma ", sigma}) : name) + (inner ? ", inner times" : "");
}

sde::Process make_process(const Config& c, const StudyProcess& p, std::int64_t steps, const nn::Network& network,
                          const Tensor& labels, const sde::NoiseKey& key, const sde::RunningCost& cost) {
  const sde::ParametricField field = finetune::parametric_field_of(network);
  if (p.name == "chain") return sde::chain_process(field, make_chain(c, steps), labels, key, cost);
  const sde::Schedule schedule = make_schedule(c);
  const sde::Parametrisation prediction = sde::parametrisation(c.prediction);
  std::vector<double> grid = sde::uniform_grid(static_cast<int>(p.inner ? steps + 2 : steps));
  if (p.inner) grid = {grid.begin() + 1, grid.end() - 1};
  const sde::ParametricSde equation =
      p.sigma > 0 ? sde::generative_sde(field, schedule, prediction, [s = p.sigma](double t) { return s * (1 - t); })
                  : sde::probability_flow(field, schedule, prediction);
  return sde::sde_process(equation, sde::solver(p.name), grid, sde::BrownianPath(grid, key), labels);
}

nn::Network with_zeros_drawn(nn::Network network, std::uint64_t seed) {
  std::uint32_t number = 0;
  nn::visit(network, [&](const std::string&, Var& p) {
    ++number;
    if (p.value().is_meta()) return;
    const std::vector<double> values = p.value().to_doubles();
    if (std::any_of(values.begin(), values.end(), [](double v) { return v != 0; })) return;
    const memory::TagScope scope(memory::Tag::parameters);
    const Tensor drawn = Tensor::empty_like(p.value());
    random_normal(drawn, seed, Stream::parameters, 0, 0x40000000u + number);
    p = Var(affine(Var(drawn), 0.02, 0.0).value());
  });
  return network;
}

bool same_bits(const sde::Gradient& a, const sde::Gradient& b) {
  const std::vector<Tensor> x = all_of(a), y = all_of(b);
  bool same = x.size() == y.size();
  for (std::size_t i = 0; same && i < x.size(); ++i)
    same = x[i].shape() == y[i].shape() && std::memcmp(x[i].raw(), y[i].raw(), static_cast<std::size_t>(x[i].bytes())) == 0;
  return same;
}

double relative_error(const sde::Gradient& g, const sde::Gradient& exact) {
  double difference = 0, norm = 0;
  const std::vector<Tensor> x = all_of(g), y = all_of(exact);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::vector<double> u = x[i].to_doubles(), v = y[i].to_doubles();
    for (std::size_t j = 0; j < u.size(); ++j) difference += (u[j] - v[j]) * (u[j] - v[j]), norm += v[j] * v[j];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

}  // namespace costate::cli
