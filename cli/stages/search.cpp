#include "stages/search.h"

#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/sampling/best_of_n.h>
#include <costate/finetune/sampling/noise_optimisation.h>
#include <costate/finetune/sampling/twisted_smc.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>

#include "run/metrics.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

struct Searcher {
  Session& s;
  const RunData& data;
  const finetune::Reward& reward;
  const SearchRequest& request;
  Shape shape = item_shape(data.model);
  sde::Chain chain = make_chain(s.config);

  sde::Field field(bool tuned) const {
    const nn::Network network = tuned ? load_tuned(s, data.model) : load_network(s, data.model, base_checkpoint, base_sections);
    return finetune::guided(finetune::field_of(network), request.guidance);
  }
  Tensor labels() const { return make_labels(request.classes, request.count, data.model, request.labels_key, s.device); }

  // A population a class: with several in one, classes of higher reward would crowd out the others.
  Found smc() const {
    const SmcConfig& c = s.config.sample.smc;
    finetune::SmcOptions o;
    o.particles = c.particles > 0 ? c.particles : request.count;
    o.reward_multiplier = s.config.reward.multiplier;
    o.resample_below = c.resample_below;
    o.proposal = c.proposal == "tuned"    ? finetune::SmcProposal::tuned
                 : c.proposal == "guided" ? finetune::SmcProposal::guided
                                          : finetune::SmcProposal::base;
    if (c.tempering == "none") o.tempering.assign(static_cast<std::size_t>(chain.steps()), 0.0);
    const sde::Field base = field(false);
    if (c.proposal == "tuned") o.tuned = field(true);
    Found found{"base_smc", Tensor::empty(shape.with_front(request.count), DType::f32, s.device), Json::object()};
    const auto populations = std::max<std::int64_t>(1, static_cast<std::int64_t>(request.classes.size()));
    std::vector<double> log_z, ess, least;
    std::int64_t resampled = 0;
    for (std::int64_t p = 0; p < populations && p < request.count; ++p) {
      const sde::NoiseKey key = request.key.from(p * o.particles);
      Tensor own;
      if (!request.classes.empty())
        own =
            make_labels({request.classes[static_cast<std::size_t>(p)]}, o.particles, data.model, request.labels_key, s.device);
      const finetune::SmcResult r = finetune::twisted_smc(base, chain, shape, reward, own, key, o, DType::f32, s.device);
      if (s.planning()) continue;
      std::vector<double> weights;
      for (const double w : r.log_weights) weights.push_back(std::exp(w));
      const std::int64_t rows = (request.count - p + populations - 1) / populations;
      const double offset =
          Philox{key.seed, Stream::subset}.uniform(key.first_sample, static_cast<std::uint32_t>(chain.steps()), 0);
      std::vector<std::int64_t> drawn = finetune::systematic_resampling(weights, rows, offset);
      for (std::int64_t i = 0; i < rows; ++i)
        found.x.slice(p + i * populations, 1).copy_from(r.x.slice(drawn[static_cast<std::size_t>(i)], 1));
      log_z.push_back(r.log_z), ess.push_back(r.ess), least.push_back(r.least_ess);
      resampled += r.resampled;
    }
    if (s.planning()) return found;
    found.facts = {{"particles", o.particles},
                   {"populations", populations},
                   {"log_z", json_number(finetune::mean_estimate(log_z).value)},
                   {"effective_share", json_number(finetune::mean_estimate(ess).value)},
                   {"least_effective_share", json_number(*std::min_element(least.begin(), least.end()))},
                   {"resamplings", resampled}};
    return found;
  }

  Found best_of_n(bool tuned) const {
    const std::int64_t n = s.config.sample.best_of_n.n, made = s.iterations(n), steps = s.sampler_steps(s.config.sampler.steps);
    const sde::Field f = field(tuned);
    const sde::Chain few = make_chain(s.config, steps);
    const Tensor own = labels();
    finetune::BestOfN best;
    s.rounds(made, n, [&] {
      best = finetune::best_of_n(made, reward, [&](std::int64_t round) {
        Tensor x;
        s.rounds(steps, s.config.sampler.steps, [&] {
          x = sde::sample(f, few, shape, request.count, own, request.key.from(round * request.count), DType::f32, s.device);
        });
        return x;
      });
    });
    return {tuned ? "tuned_best_of_n" : "base_best_of_n",
            best.x,
            {{"n", n}, {"kl_to_its_model_at_most", finetune::best_of_n_kl(n)}}};
  }

  Found noise(bool tuned) const {
    const NoiseConfig& c = s.config.sample.noise;
    finetune::NoiseOptimisationOptions o;
    o.iterations = static_cast<int>(s.iterations(c.iterations));
    o.gamma = c.gamma, o.vector = static_cast<int>(c.vector), o.permutations = static_cast<int>(c.permutations);
    o.adamw.lr = c.lr, o.clip_norm = c.clip_norm;
    const sde::Field f = field(tuned);
    // A plan takes the last of its updates for all that it leaves out; samples are made once more after them.
    Evaluations before;
    std::int64_t flops_before = 0;
    const auto watch = [&](int n, double) {
      if (!s.planning()) return;
      if (n == 2) {
        const std::int64_t left = c.iterations - o.iterations;
        s.counter->repeat(before, 1, 1 + left);
        s.assumed_flops += (flops() - flops_before) * left;
      }
      before = s.counter->now(), flops_before = flops();
    };
    const finetune::NoiseOptimisation r =
        finetune::optimise_noise(f, chain, shape, request.count, reward, labels(), request.key, o, DType::f32, s.device, watch);
    Found found{tuned ? "tuned_noise_optimisation" : "base_noise_optimisation", r.x, {{"iterations", c.iterations}}};
    if (!s.planning()) {
      found.facts["reward_before"] = json_number(r.history.front());
      if (!r.improbability.empty()) found.facts["improbability"] = json_estimate(finetune::mean_estimate(r.improbability));
    }
    return found;
  }
};

}  // namespace

void search(Session& s, const RunData& data, const finetune::Reward& reward, const SearchRequest& request,
            const std::function<void(const Found&)>& use) {
  const Searcher searcher{s, data, reward, request};
  for (const std::string& method : s.config.sample.methods) {
    if (method == "smc") {
      if (request.base) use(searcher.smc());
      continue;
    }
    for (const bool tuned : {false, true})
      if (tuned ? request.tuned : request.base) use(method == "best_of_n" ? searcher.best_of_n(tuned) : searcher.noise(tuned));
  }
}

}  // namespace costate::cli
