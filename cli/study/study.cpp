#include "study/study.h"

#include <costate/tensor/error.h>
#include <costate/tensor/flops.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "study/problem.h"

namespace costate::cli {
namespace {

using sde::Gradient;

nn::Network study_network(const StudyNetwork& n, const data::Dataset& data, Device device) {
  nn::Network network = with_zeros_drawn(make_network(n.config, data, device), static_cast<std::uint64_t>(n.config.seed));
  return n.recompute ? network.recompute_blocks() : network;
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
    g = compute(make_process(n.config, p, steps, fresh, {}, key), x0, options);
  }
  numbers.peak = scope.peak();
  numbers.peak.total += parameter_bytes - before.total;
  for (int i = 0; i < memory::tag_count; ++i) numbers.peak.by_tag[i] -= before.by_tag[i];
  numbers.peak.by_tag[static_cast<int>(memory::Tag::parameters)] += parameter_bytes;
  numbers.flops = flops() - operations;
  numbers.work = g.work;
  return g;
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
          row.refusal = sde::refusal(make_process(n.config, p, steps, meta, {}, key), options);
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
            const sde::Process process = make_process(n.config, p, steps, real, {}, key);
            if (!stored.x.defined()) stored = options.method == sde::AdjointMethod::store_all ? g : compute(process, x0, {});
            row.exact = same_bits(g, stored);
            if (study.reference) {
              if (!exact.x.defined()) exact = compute(make_process(n.config, p, steps, wide, {}, key), x0.to(DType::f64), {});
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
