#include "stages/mem_limit.h"

#include <algorithm>
#include <tuple>

#include "bytes.h"
#include "objectives/objectives.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

void apply(Config& c, const MemoryCandidate& m) {
  c.finetune.micro_batch = m.micro_batch;
  c.finetune.keep_activations = m.keep_activations;
  c.finetune.recompute = m.recompute;
}

std::int64_t rows_of(const Config& c, std::int64_t micro_batch) {
  return micro_batch == 0 ? c.finetune.batch : micro_batch;
}

// False where the objective refuses such settings: they are no candidate. (The configured ones have been planned before.)
bool measure(const Config& config, MemoryCandidate& m) {
  Config c = config;
  apply(c, m);
  StageRecord record;
  try {
    record = plan(c, {Stage::finetune}).front();
  } catch (const Error& e) {
    if (e.fault() != Fault::argument) throw;
    return false;
  }
  m.peak = record.peak.total, m.flops = record.flops;
  m.same_bits = rows_of(config, m.micro_batch) == rows_of(config, config.finetune.micro_batch) &&
                m.keep_activations == config.finetune.keep_activations;
  return true;
}

// The configured one (0, all, if it is the whole batch) and the halves of the batch, the largest first.
std::vector<std::int64_t> micro_batches(const Config& c) {
  // Policy gradients hold all paths of an iteration.
  if (objective(c.finetune.objective).loop == Loop::policy_gradient) return {c.finetune.micro_batch};
  std::vector<std::int64_t> sizes;
  for (std::int64_t m = c.finetune.batch; m > 1;) sizes.push_back(m = (m + 1) / 2);
  sizes.push_back(0);
  sizes.push_back(c.finetune.micro_batch == c.finetune.batch ? 0 : c.finetune.micro_batch);
  std::sort(sizes.begin(), sizes.end(), [&](auto a, auto b) { return rows_of(c, a) > rows_of(c, b); });
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

}  // namespace

std::string MemoryCandidate::settings() const {
  return sentence({"--set finetune.micro_batch=", micro_batch, " --set finetune.keep_activations=", keep_activations ? "true" : "false",
                   " --set finetune.recompute=", recompute});
}

MemoryFit fit_to_memory(const Config& config, const std::vector<Stage>& stages, std::int64_t limit) {
  MemoryFit fit;
  bool tunes = false;
  for (const StageRecord& r : plan(config, stages)) {
    if (r.name == "finetune") tunes = true;
    else if (r.peak.total > fit.other_peak) fit.other = r.name, fit.other_peak = r.peak.total;
  }
  if (!tunes || fit.other_peak > limit) return fit;
  const Loop loop = objective(config.finetune.objective).loop;
  const bool may_keep = loop == Loop::regression ||
                        (loop == Loop::backpropagation && config.finetune.backpropagation.adjoint == "store_all");
  for (const bool keep : {false, true})
    for (const char* recompute : {"none", "blocks"}) {
      if (keep && !may_keep) continue;
      std::int64_t before = 0;
      for (const std::int64_t size : micro_batches(config)) {
        MemoryCandidate m{size, keep, recompute};
        if (!measure(config, m)) continue;
        fit.candidates.push_back(m);
        // The configured size is looked at whatever the larger ones need: it keeps the bits. Below it the first that fits is
        // as good as the smaller ones, and has fewer pieces.
        const std::int64_t configured = rows_of(config, config.finetune.micro_batch);
        if (m.peak <= limit && rows_of(config, size) <= configured) break;
        if (before > 0 && rows_of(config, size) < configured && m.peak > before - before / 100) break;
        before = m.peak;
      }
    }
  const auto key = [&](const MemoryCandidate& m) {
    return std::make_tuple(m.flops, !m.same_bits, -rows_of(config, m.micro_batch), m.peak);
  };
  std::stable_sort(fit.candidates.begin(), fit.candidates.end(),
                   [&](const MemoryCandidate& a, const MemoryCandidate& b) { return key(a) < key(b); });
  const auto found = std::find_if(fit.candidates.begin(), fit.candidates.end(),
                                  [&](const MemoryCandidate& m) { return m.peak <= limit; });
  if (found != fit.candidates.end()) fit.chosen = static_cast<int>(found - fit.candidates.begin());
  return fit;
}

Config fitted(const Config& config, const MemoryFit& fit, std::int64_t limit) {
  const std::string allowed = bytes_text(limit);
  if (fit.other_peak > limit)
    fail(Fault::memory, {"--mem-limit: the smallest peak of ", fit.other, " is ", fit.other_peak, " bytes (",
                         bytes_text(fit.other_peak), "), but the limit is ", limit, " (", allowed,
                         "), and no setting that leaves the result's law alone changes it"});
  Config out = config;
  if (fit.candidates.empty()) return out;
  if (fit.chosen < 0) {
    const auto least = std::min_element(fit.candidates.begin(), fit.candidates.end(),
                                        [](const auto& a, const auto& b) { return a.peak < b.peak; });
    fail(Fault::memory, {"--mem-limit: the smallest peak of finetune is ", least->peak, " bytes (", bytes_text(least->peak),
                         "), with ", least->settings(), ", but the limit is ", limit, " (", allowed, ")"});
  }
  apply(out, fit.best());
  return out;
}

std::string memory_fit_text(const MemoryFit& fit, std::int64_t limit) {
  std::string out = "limit " + std::to_string(limit) + " bytes (" + bytes_text(limit) + ")";
  if (!fit.other.empty())
    out += "; beside fine-tuning, " + fit.other + " needs most: " + std::to_string(fit.other_peak) + " bytes";
  out += "\n";
  if (fit.candidates.empty()) return out;
  Table table({"", "micro_batch", "keep_activations", "recompute", "peak bytes", "FLOPs", "fits", "result"});
  for (std::size_t i = 0; i < fit.candidates.size(); ++i) {
    const MemoryCandidate& m = fit.candidates[i];
    table.row({static_cast<int>(i) == fit.chosen ? "->" : "", m.micro_batch == 0 ? "all" : std::to_string(m.micro_batch),
               m.keep_activations ? "true" : "false", m.recompute, std::to_string(m.peak), flops_text(m.flops),
               m.peak <= limit ? "yes" : "no", m.same_bits ? "same bits" : "same law"});
  }
  out += "\n" + table.text(false);
  if (fit.chosen >= 0)
    out += "\nfewest operations within the limit: " + fit.best().settings() + "\n" +
           (fit.best().same_bits ? "The result has the bits of the configured settings.\n"
                                 : "The result has the law of the configured settings and other bits: sums are cut differently.\n");
  return out;
}

Json memory_fit_json(const MemoryFit& fit, std::int64_t limit) {
  Json list = Json::array();
  for (const MemoryCandidate& m : fit.candidates)
    list.push_back({{"micro_batch", m.micro_batch},
                    {"keep_activations", m.keep_activations},
                    {"recompute", m.recompute},
                    {"peak_bytes", m.peak},
                    {"flops", m.flops},
                    {"fits", m.peak <= limit},
                    {"same_bits", m.same_bits}});
  Json out{{"limit", limit}, {"candidates", list}};
  out["chosen"] = fit.chosen < 0 ? Json() : Json(fit.best().settings());
  return out;
}

}  // namespace costate::cli
