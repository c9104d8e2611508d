#include "study/study.h"

#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/error.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "build.h"

namespace costate::cli {
namespace {

using sde::Gradient;

// A network whose output depends on all of its parameters: those that start at zero (the last layers of DiTs) are drawn
// from N(0, 0.02^2).
nn::Network study_network(const StudyNetwork& n, const data::Dataset& data, Device device) {
  nn::Network network = make_network(n.config, data, device);
  std::uint32_t number = 0;
  nn::visit(network, [&](const std::string&, Var& p) {
    ++number;
    if (p.value().is_meta()) return;
    const std::vector<double> values = p.value().to_doubles();
    if (std::any_of(values.begin(), values.end(), [](double v) { return v != 0; })) return;
    const memory::TagScope scope(memory::Tag::parameters);
    const Tensor drawn = Tensor::empty_like(p.value());
    random_normal(drawn, static_cast<std::uint64_t>(n.config.seed), Stream::parameters, 0, 0x40000000u + number);
    p = Var(affine(Var(drawn), 0.02, 0.0).value());
  });
  return network;
}

nn::Network in_double(nn::Network network) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::visit_state(network, [](const std::string&, Var& p) {
    if (p.value().dtype() == DType::f32) p = Var(p.value().to(DType::f64));
  });
  return network;
}

sde::Process make_process(const StudyNetwork& n, const StudyProcess& p, std::int64_t steps, const nn::Network& network,
                          const sde::NoiseKey& key) {
  const sde::ParametricField field = finetune::parametric_field_of(network);
  if (p.name == "chain") return sde::chain_process(field, make_chain(n.config, steps), Tensor(), key);
  const sde::Schedule schedule = make_schedule(n.config);
  const sde::Parametrisation prediction = sde::parametrisation(n.config.prediction);
  const std::vector<double> grid = sde::uniform_grid(static_cast<int>(steps));
  const sde::ParametricSde equation =
      p.sigma > 0 ? sde::generative_sde(field, schedule, prediction, [s = p.sigma](double t) { return s * (1 - t); })
                  : sde::probability_flow(field, schedule, prediction);
  return sde::sde_process(equation, sde::solver(p.name), grid, sde::BrownianPath(grid, key));
}

// g = |x_K|^2/2.
Gradient compute(const sde::Process& process, const Tensor& x0, const sde::AdjointOptions& options) {
  return sde::gradient(process, x0, [](const Tensor& x) { return x.clone(); }, options);
}

// One gradient from a network without anything derived from its parameters yet.
Gradient account(const StudyNetwork& n, const StudyProcess& p, std::int64_t steps, const nn::Network& network, const Shape& item,
                 Device device, const sde::NoiseKey& key, const sde::AdjointOptions& options, StudyRow::Numbers& numbers) {
  const nn::Network fresh = nn::clone(network);
  std::int64_t parameter_bytes = 0;
  for (const Tensor& t : nn::parameters(fresh)) parameter_bytes += t.storage()->bytes;
  const memory::Usage before = memory::live();
  const std::int64_t operations = flops();
  const memory::PeakScope scope;
  Gradient g;
  {
    const Tensor x0 = sde::initial_noise(item, n.batch, key, DType::f32, device);
    g = compute(make_process(n, p, steps, fresh, key), x0, options);
  }
  numbers.peak = scope.peak();
  numbers.peak.total += parameter_bytes - before.total;
  for (int i = 0; i < memory::tag_count; ++i) numbers.peak.by_tag[i] -= before.by_tag[i];
  numbers.peak.by_tag[static_cast<int>(memory::Tag::parameters)] += parameter_bytes;
  numbers.flops = flops() - operations;
  numbers.work = g.work;
  return g;
}

std::vector<Tensor> all_of(const Gradient& g) {
  std::vector<Tensor> all = g.parameters;
  if (g.initial.defined()) all.push_back(g.initial);
  return all;
}
bool same_bits(const Gradient& a, const Gradient& b) {
  const std::vector<Tensor> x = all_of(a), y = all_of(b);
  bool same = x.size() == y.size();
  for (std::size_t i = 0; same && i < x.size(); ++i)
    same = x[i].shape() == y[i].shape() && std::memcmp(x[i].raw(), y[i].raw(), static_cast<std::size_t>(x[i].bytes())) == 0;
  return same;
}
double relative_error(const Gradient& g, const Gradient& exact) {
  double difference = 0, norm = 0;
  const std::vector<Tensor> x = all_of(g), y = all_of(exact);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::vector<double> u = x[i].to_doubles(), v = y[i].to_doubles();
    for (std::size_t j = 0; j < u.size(); ++j) difference += (u[j] - v[j]) * (u[j] - v[j]), norm += v[j] * v[j];
  }
  return std::sqrt(difference / norm);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : (v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2;
}

}  // namespace

std::string broken_promise(const StudyRow& r) {
  if (!r.refusal.empty()) return {};
  const std::string cell = r.network + ", " + r.process + ", " + r.method + ", " + std::to_string(r.steps) + " steps: ";
  if (r.planned.peak.total != r.measured.peak.total)
    return cell + sentence({"the peak is ", r.measured.peak.total, " bytes, predicted were ", r.planned.peak.total});
  if (r.planned.work.evaluations != r.measured.work.evaluations || r.planned.work.pullbacks != r.measured.work.pullbacks ||
      r.planned.work.recomputed != r.measured.work.recomputed || r.planned.flops != r.measured.flops)
    return cell + "evaluations, pullbacks or operations are not those predicted";
  return {};
}

std::vector<StudyRow> run_study(const StudyConfig& study, bool planning, Progress& progress) {
  std::vector<StudyRow> rows;
  const std::int64_t cells = static_cast<std::int64_t>(study.networks.size() * study.processes.size() * study.steps.size() *
                                                       study.methods.size());
  progress.begin("study", cells);
  const sde::NoiseKey key{static_cast<std::uint64_t>(study.seed), 0};
  for (const StudyNetwork& n : study.networks) {
    const RunData data = load_run_data(n.config, true);
    const Shape item = item_shape(data.model);
    const nn::Network meta = study_network(n, data.model, Device::meta);
    const nn::Network real = planning ? nn::Network() : study_network(n, data.model, Device::cpu);
    const nn::Network wide = planning || !study.reference ? nn::Network() : in_double(real);
    for (const StudyProcess& p : study.processes)
      for (const std::int64_t steps : study.steps) {
        Gradient stored, exact;  // of this process, when first needed
        for (const StudyMethod& m : study.methods) {
          StudyRow row{n.name, p.label(), m.label(), steps, {}, {}, {}, 0, std::numeric_limits<double>::quiet_NaN(), false};
          sde::AdjointOptions options = m.options;
          row.refusal = sde::refusal(make_process(n, p, steps, meta, key), options);
          if (row.refusal.empty()) {
            try {
              account(n, p, steps, meta, item, Device::meta, key, options, row.planned);
            } catch (const Error& e) {  // of an op that the method cannot go through
              if (options.method != sde::AdjointMethod::forward || e.fault() != Fault::argument) throw;
              row.refusal = e.what();
            }
          }
          if (row.refusal.empty() && !planning) {
            const Gradient g = account(n, p, steps, real, item, Device::cpu, key, options, row.measured);
            const Tensor x0 = sde::initial_noise(item, n.batch, key);
            const sde::Process process = make_process(n, p, steps, real, key);
            if (!stored.x.defined()) stored = options.method == sde::AdjointMethod::store_all ? g : compute(process, x0, {});
            row.exact = same_bits(g, stored);
            if (study.reference) {
              if (!exact.x.defined()) exact = compute(make_process(n, p, steps, wide, key), x0.to(DType::f64), {});
              row.error = relative_error(g, exact);
            }
            std::vector<double> seconds;
            for (std::int64_t round = 0; round < study.rounds; ++round) {
              const auto start = std::chrono::steady_clock::now();
              compute(process, x0, options);
              seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
            }
            row.seconds = median(seconds);
          }
          rows.push_back(std::move(row));
          progress.step(static_cast<std::int64_t>(rows.size()), n.name + ", " + p.label() + ", " + m.label());
        }
      }
  }
  progress.end(std::to_string(rows.size()) + " cells");
  return rows;
}

}  // namespace costate::cli
