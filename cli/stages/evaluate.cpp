// What fine-tuning did, in numbers: reward, diversity, the judge's opinion, distances to the laws that are
// known, and the divergence of the paths.
#include <costate/finetune/evaluate/control_report.h>
#include <costate/finetune/evaluate/diversity.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/network_field.h>
#include <costate/sde/girsanov.h>

#include <algorithm>
#include <cmath>

#include "stages/evaluate/control_error.h"
#include "stages/evaluate/curve.h"
#include "stages/evaluate/laws.h"
#include "stages/evaluation.h"
#include "stages/initial_law.h"
#include "stages/likelihood.h"
#include "stages/search.h"

namespace costate::cli {
namespace {

// Everything that is drawn from the models: the same shape, count and labels throughout.
struct Draws {
  Session& s;
  const Config& c = s.config;
  const RunData& data;
  std::int64_t count = c.evaluate.count;
  Shape shape = item_shape(data.model);
  std::vector<std::int64_t> classes = c.evaluate.labels.empty() ? c.finetune.labels : c.evaluate.labels;
  Tensor labels = make_labels(classes, count, data.model, "evaluate.labels", s.device);
  std::int64_t steps = s.sampler_steps(c.sampler.steps), flow_steps = s.sampler_steps(ode_steps(c));
  sde::Chain chain = make_chain(c, steps);
  std::optional<finetune::TiltedNoise> initial = load_initial_law(s, data.model);
  sde::NoiseKey base_key{seed_of(c, Purpose::evaluate), 0};  // of the paths that the initial law's density is estimated on

  Tensor sde_samples(const sde::Field& field, const sde::NoiseKey& key) const {
    Tensor x;
    s.rounds(steps, c.sampler.steps, [&] { x = sde::sample(field, chain, shape, count, labels, key, DType::f32, s.device); });
    return x;
  }
  Tensor ode_samples(const sde::Field& field, const sde::NoiseKey& key) const {
    Tensor x;
    s.rounds(flow_steps, ode_steps(c), [&] { x = sample_ode(c, field, flow_steps, shape, count, labels, key, s.device); });
    return x;
  }
  // `base_flops`: of a step of the base, for plans.
  // From the run's initial law, whose density is then a part of the paths', in log_ratio and cost alike.
  sde::Paths paths(const sde::Field& tuned, const sde::Field& base, const sde::NoiseKey& key, std::int64_t base_flops,
                   const sde::PathVisitor& visit = nullptr) const {
    const Tensor start = initial ? initial->draw(count, key, labels).x : Tensor();
    const std::int64_t flops_before = flops();
    sde::Paths out = sde::sample_paths(tuned, base, chain, shape, count, labels, key,
                                       {.device = s.device, .visit = visit, .start = start});
    const std::int64_t path_flops = flops() - flops_before;
    if (initial) {
      const std::vector<double> ratio = initial->log_ratio(start, base_key, labels);
      for (std::size_t i = 0; i < ratio.size(); ++i) out.log_ratio[i] += ratio[i], out.cost[i] += ratio[i];
    }
    if (!s.planning()) return out;
    // The tuned network at every step, the base at those with noise.
    const auto noisy_steps = [](const sde::Chain& of) {
      return std::count_if(of.std.begin(), of.std.end(), [](double v) { return v > 0; });
    };
    const auto rows = [&](const sde::Chain& of) { return count * (of.steps() + noisy_steps(of)); };
    const sde::Chain whole = make_chain(c);
    s.counter->add(rows(whole) - rows(chain), false, false);
    const std::int64_t tuned_flops = (path_flops - base_flops * noisy_steps(chain)) / chain.steps();  // of a step
    s.assumed_flops += tuned_flops * (whole.steps() - chain.steps()) + base_flops * (noisy_steps(whole) - noisy_steps(chain));
    return out;
  }
};

// Of the tuned paths whose rewards are valid; the base's samples likewise.
finetune::ControlReport control_of(double lambda, const Samples& base, const Samples& tuned, const sde::Paths& paths) {
  return finetune::control_report(lambda, base.raised.kept(), tuned.raised.kept(), tuned.raised.kept(paths.cost),
                                  tuned.raised.kept(paths.log_ratio));
}

Json control_json(const finetune::ControlReport& r) {
  return {{"objective", json_estimate(r.objective)},
          {"log_z_of_base", json_estimate(r.log_z_of_base)},
          {"log_z_of_tuned", json_estimate(r.log_z_of_tuned)},
          {"gap", json_estimate(r.gap)},
          {"variance_of_log_weights", json_number(r.log_weight_variance)},
          {"effective_share_of_base", json_number(r.base_ess)},
          {"effective_share_of_tuned", json_number(r.tuned_ess)}};
}

Json f_divergence_json(const finetune::DivergenceTilt& t) {
  return {{"multiplier", json_estimate({t.lambda, t.standard_error})},
          {"expected_reward", json_number(t.mean_reward)},
          {"divergence", json_number(t.divergence_value)},
          {"value", json_number(t.value)},
          {"dual_value", json_number(t.dual_value)},
          {"share_at_the_floor", json_number(t.floor_share)},
          {"share_at_the_ceiling", json_number(t.ceiling_share)},
          {"largest_share_of_a_sample", json_number(t.largest_share)},
          {"effective_samples", json_number(t.effective_samples)}};
}

// A row of the curve: what a checkpoint has reached.
std::vector<std::pair<std::string, double>> curve_numbers(const Samples& set, const sde::Paths& paths,
                                                          const finetune::ControlReport& control, const Laws& laws, int dim) {
  std::vector<std::pair<std::string, double>> row;
  const auto add = [&](const std::string& name, const finetune::Estimate& e) {
    row.emplace_back(name, e.value), row.emplace_back(name + "_error", e.standard_error);
  };
  add("reward", set.reward.mean());
  row.emplace_back("failed_rewards", static_cast<double>(set.reward.failed));
  if (!set.gold.value.empty()) {
    add("gold_reward", set.gold.mean());
    row.emplace_back("failed_gold_rewards", static_cast<double>(set.gold.failed));
  }
  add("path_kl", finetune::mean_estimate(paths.cost));
  add("objective", control.objective);
  row.emplace_back("effective_share", control.tuned_ess);
  row.emplace_back("vendi", laws.vendi(set));
  row.emplace_back("frechet", laws.frechet_to_reweighted_base(set));
  row.emplace_back("diversity", std::sqrt(finetune::mean_pairwise_squared_distance(dim, set.values)));
  return row;
}

}  // namespace

void evaluate_stage(Session& s) {
  const Config& c = s.config;
  const RunData data = load_run_data(c, s.planning());
  const bool judged = c.data.held_out > 0;
  const Draws draws{s, c, data};
  const std::int64_t count = draws.count, dim = data::item_size(data.model);
  const std::optional<finetune::MixtureTilt> tilt = closed_form(c, data.model);
  const std::vector<std::int64_t> checkpoints = c.evaluate.checkpoints ? checkpoint_steps(c) : std::vector<std::int64_t>{};
  const LoadedReward reward = load_reward_with_tilt(s, data.model);
  s.begin("evaluate", 4);

  nn::Classifier judge;
  if (judged) judge = load_classifier(s, data.model, c.judge, judge_checkpoint, classifier_sections);
  const double lambda = c.reward.multiplier;
  const Judges judges{reward, lambda, load_gold(s, data.model, judge), judged ? &judge : nullptr};
  const nn::Network base = load_network(s, data.model, base_checkpoint, base_sections);
  const nn::Network tuned = load_tuned(s, data.model);
  const auto guided = [&](const nn::Network& network) {
    return finetune::guided(finetune::field_of(network), c.finetune.guidance);
  };
  const sde::Field base_field = guided(base), tuned_field = guided(tuned);

  // Base and tuned samples come from noise of their own, SDE and ODE samples of one model from the same
  // initial noise.
  const std::uint64_t seed = seed_of(c, Purpose::evaluate);
  const sde::NoiseKey base_key{seed, 0}, tuned_key{seed, static_cast<std::uint64_t>(count)};
  std::vector<Samples> sets;
  const auto done = [&](std::string name, const Tensor& x) {
    sets.push_back(look_at(std::move(name), x, judges));
    s.step(static_cast<std::int64_t>(std::min<std::size_t>(sets.size(), 4)), sets.back().name);
  };
  const std::int64_t flops_before = flops();
  Tensor base_samples = draws.sde_samples(base_field, base_key);
  const std::int64_t base_flops = (flops() - flops_before) / draws.steps;  // of a step
  done("base_sde", base_samples);
  base_samples = Tensor();
  done("base_ode", draws.ode_samples(base_field, base_key));
  std::optional<ControlError> control;
  if (tilt && c.evaluate.control_error && c.prediction == "velocity" && !s.planning())
    control.emplace(*tilt, draws.chain, count);
  sde::PathVisitor visit;
  if (control)
    visit = [&](int k, std::int64_t first, const Tensor& x, const Tensor& v, const Tensor& b) {
      control->look(k, first, x, v, b);
    };
  sde::Paths paths = draws.paths(tuned_field, base_field, tuned_key, base_flops, visit);
  const double initial_divergence = draws.initial ? draws.initial->divergence(count, base_key, draws.labels) : 0;
  done("tuned_sde", paths.terminal);
  paths.terminal = Tensor();
  done("tuned_ode", draws.ode_samples(tuned_field, tuned_key));
  Json methods = Json::object();
  if (c.evaluate.methods) {
    const SearchRequest request{
        count, draws.classes, "evaluate.labels", c.finetune.guidance, {seed, 2 * static_cast<std::uint64_t>(count)}};
    search(s, data, reward.raised, request, [&](const Found& found) {
      done(found.name, found.x);
      methods[found.name] = found.facts;
    });
  }
  Opinion real;
  if (judged) {
    const memory::TagScope scope(memory::Tag::data);
    std::vector<float> values = data.model.values;
    real = opinion(judge, Tensor::from(values, Shape{data.model.count, dim}, s.device));
  }
  Json base_likelihood, tuned_likelihood;
  if (c.evaluate.likelihood.count > 0) {  // unguided: guidance samples from no density of the data
    const data::Dataset& scored = judged ? data.judge : data.model;
    base_likelihood = likelihood(c, finetune::field_of(base), scored, s.device);
    tuned_likelihood = likelihood(c, finetune::field_of(tuned), scored, s.device);
  }
  std::optional<Laws> laws;
  if (!s.planning()) laws.emplace(c, data, tilt, real, sets[0], seed);

  if (c.evaluate.checkpoints) {
    Curve curve;
    const auto wanted = static_cast<std::int64_t>(checkpoints.size()), made = s.iterations(wanted);
    s.rounds(made, wanted, [&] {
      for (std::int64_t i = 0; i < made; ++i) {
        const std::int64_t step = checkpoints[static_cast<std::size_t>(i)];
        const nn::Network network = load_tuned(s, data.model, step < c.finetune.iterations ? step : 0);
        const sde::Paths p = draws.paths(guided(network), base_field, tuned_key, base_flops);
        const Samples set = look_at("checkpoint " + std::to_string(step), p.terminal, judges);
        if (s.planning()) continue;
        curve.row(step, queries_at(*s.directory, step),
                  curve_numbers(set, p, control_of(lambda, sets[0], set, p), *laws, static_cast<int>(dim)));
      }
    });
    if (!s.planning()) s.directory->write("curve.csv", curve.csv());
  }
  if (s.planning()) return;

  Json out = Json::object();
  for (const Samples& set : sets) {
    out["samples"][set.name] = laws->numbers(set);
    s.log_distribution("evaluate", "reward/" + set.name, set.reward.kept());
    if (judges.gold.defined()) s.log_distribution("evaluate", "gold_reward/" + set.name, set.gold.kept());
  }
  if (!methods.empty()) out["methods"] = methods;
  out["features"] = laws->features();
  if (laws->has_frechet()) out["frechet"] = laws->frechet(sets[2], sets[3]);
  out["importance"] = laws->importance();
  out["best_of_n_of_base"] = laws->best_of_n();
  if (reward.tilt) out["f_divergence"] = f_divergence_json(*reward.tilt);
  const finetune::ControlReport report = control_of(lambda, sets[0], sets[2], paths);
  const auto tuned_rewards = static_cast<double>(sets[2].raised.kept().size());
  // A path has a divergence whether or not its sample has a reward.
  out["path_kl"] = {{"control_cost", json_estimate(finetune::mean_estimate(paths.cost))},
                    {"girsanov", json_estimate(finetune::mean_estimate(paths.log_ratio))},
                    {"log_z_from_tuned_paths", json_estimate(report.log_z_of_tuned)},
                    {"effective_samples_of_tuned_paths", json_number(report.tuned_ess * tuned_rewards)}};
  if (draws.initial) out["path_kl"]["initial_law"] = json_number(initial_divergence);
  out["control"] = control_json(report);
  if (c.evaluate.likelihood.count > 0) {
    out["likelihood_of_base"] = base_likelihood;
    out["likelihood_of_tuned"] = tuned_likelihood;
  }
  if (tilt) {
    Json& j = out["closed_form"] = laws->closed_form();
    if (control) {
      j["relative_control_error"] = json_number(control->overall());
      j["relative_control_error_by_step"] = control->by_step();
    }
  }
  out["count"] = count;
  out["unit_of_distances"] = json_number(laws->unit());
  s.directory->write("evaluation.json", out.dump(2) + "\n");
  const auto change = [&](const Rewards Samples::*of) {
    return short_number((sets[0].*of).mean().value) + " -> " + short_number((sets[2].*of).mean().value);
  };
  s.end("reward " + change(&Samples::reward) +
        (judges.gold.defined() ? ", gold reward " + change(&Samples::gold) : ""));
}

}  // namespace costate::cli
