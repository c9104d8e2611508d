// What fine-tuning did, in numbers: reward, diversity, the judge's opinion, distances to the laws that are
// known, and the divergence of the paths.
#include <costate/finetune/evaluate/diversity.h>
#include <costate/finetune/evaluate/frechet.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/evaluate/modes.h>
#include <costate/finetune/evaluate/wasserstein.h>
#include <costate/finetune/network_field.h>
#include <costate/sde/girsanov.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "stages/evaluation.h"
#include "stages/likelihood.h"
#include "stages/stages.h"

namespace costate::cli {
namespace {

using finetune::Estimate;
constexpr std::int64_t slice_rows = 1024;  // samples that the reward and the judge look at at a time

struct Opinion {  // the judge's
  std::int64_t width = 0;
  std::vector<std::int32_t> label;
  std::vector<double> feature;  // (rows, width)
};

struct Samples {
  std::string name;
  std::vector<double> values, reward;  // (rows, dim) as the network sees them, (rows)
  Opinion opinion;
};

// Calls body(rows) for slices of x.
template <class Body>
void each_slice(const Tensor& x, const Body& body) {
  for (std::int64_t first = 0; first < x.extent(0); first += slice_rows)
    body(x.slice(first, std::min(slice_rows, x.extent(0) - first)));
}

Opinion ask(const nn::Classifier& judge, const Tensor& x) {
  Opinion out;
  each_slice(x, [&](const Tensor& rows) {
    const finetune::Judgement j = finetune::judge(judge, rows);
    out.width = j.width;
    out.label.insert(out.label.end(), j.label.begin(), j.label.end());
    out.feature.insert(out.feature.end(), j.feature.begin(), j.feature.end());
  });
  return out;
}

Samples look_at(std::string name, const Tensor& x, const finetune::Reward& reward,
                const nn::Classifier* judge) {
  Samples out{std::move(name), x.to_doubles(), {}, {}};
  each_slice(x, [&](const Tensor& rows) {
    const std::vector<double> r = reward(rows).to_doubles();
    out.reward.insert(out.reward.end(), r.begin(), r.end());
  });
  if (judge) out.opinion = ask(*judge, x);
  if (!x.is_meta())
    for (const std::vector<double>* v : {&out.values, &out.reward})
      if (!std::all_of(v->begin(), v->end(), [](double e) { return std::isfinite(e); }))
        fail(Fault::numerical,
             {"evaluate: the samples '", out.name, "' or their rewards are not all finite"});
  return out;
}

// Features of the rows for which `wanted` holds.
template <class Wanted>
std::vector<double> features_where(const Opinion& o, const Wanted& wanted) {
  std::vector<double> out;
  for (std::size_t i = 0; i < o.label.size(); ++i)
    if (wanted(i))
      out.insert(out.end(), o.feature.begin() + i * o.width, o.feature.begin() + (i + 1) * o.width);
  return out;
}

// Standard deviation of the data: the root of the mean variance of its coordinates.
double deviation(const data::Dataset& d) {
  const std::int64_t dim = data::item_size(d);
  double variance = 0;
  for (std::int64_t j = 0; j < dim; ++j) {
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < d.count; ++i) {
      const double v = d.values[i * dim + j];
      sum += v, squares += v * v;
    }
    const auto n = static_cast<double>(d.count);
    variance += squares / n - sum / n * (sum / n);
  }
  return std::sqrt(std::max(variance / static_cast<double>(dim), 1e-300));
}

// Squared errors and squared lengths of the control, by step and chunk of rows.
class ControlError {
 public:
  ControlError(const finetune::MixtureTilt& tilt, const sde::Chain& chain, std::int64_t count)
      : tilt_(tilt), chain_(chain), chunk_(sde::chunk_rows(count)) {
    const auto chunks = static_cast<std::size_t>((count + chunk_ - 1) / chunk_);
    error_.assign(static_cast<std::size_t>(chain.steps()), std::vector<double>(chunks));
    length_ = error_;
  }
  void look(int k, std::int64_t first, const Tensor& x, const Tensor& tuned, const Tensor& base) {
    const std::int64_t rows = x.extent(0), n = x.numel();
    const std::vector<double> at = x.to_doubles();
    std::vector<double> optimal(at.size()), exact(at.size());
    tilt_.optimal_velocity(chain_.schedule, rows, at.data(), chain_.t[k], optimal.data());
    tilt_.base().velocity(chain_.schedule, rows, at.data(), chain_.t[k], exact.data());
    const auto v = tuned.values<float>(), b = base.values<float>();
    double error = 0, length = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double wanted = optimal[i] - exact[i], found = static_cast<double>(v[i]) - b[i];
      error += (found - wanted) * (found - wanted), length += wanted * wanted;
    }
    error_[k][first / chunk_] = error, length_[k][first / chunk_] = length;
  }
  // One number a step; null where there is no control.
  Json by_step() const {
    Json out = Json::array();
    for (std::size_t k = 0; k < error_.size(); ++k)
      out.push_back(json_number(total(error_[k]) / total(length_[k])));
    return out;
  }
  double overall() const {
    double error = 0, length = 0;
    for (std::size_t k = 0; k < error_.size(); ++k) {  // weights of the control: C^2 / std^2
      if (chain_.std[k] == 0) continue;
      const double w = chain_.C[k] * chain_.C[k] / (chain_.std[k] * chain_.std[k]);
      error += w * total(error_[k]), length += w * total(length_[k]);
    }
    return error / length;
  }

 private:
  static double total(const std::vector<double>& v) {
    double sum = 0;
    for (const double e : v) sum += e;
    return sum;
  }
  const finetune::MixtureTilt& tilt_;
  const sde::Chain& chain_;
  std::int64_t chunk_;
  std::vector<std::vector<double>> error_, length_;
};

Json numbers(const std::vector<double>& v) {
  Json out = Json::array();
  for (const double e : v) out.push_back(json_number(e));
  return out;
}

double largest_difference(const std::vector<double>& a, std::span<const double> b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, std::abs(a[i] - b[i]));
  return out;
}

}  // namespace

void evaluate_stage(Session& s) {
  const Config& c = s.config;
  const RunData data = load_run_data(c, s.planning());
  const bool judged = c.data.held_out > 0;
  const std::int64_t count = c.evaluate.count, dim = data::item_size(data.model);
  const Shape shape = item_shape(data.model);
  const std::vector<std::int64_t>& classes =
      c.evaluate.labels.empty() ? c.finetune.labels : c.evaluate.labels;
  const Tensor labels = make_labels(classes, count, data.model, "evaluate.labels", s.device);
  const std::int64_t steps = s.sampler_steps(c.sampler.steps), flow_steps = s.sampler_steps(ode_steps(c));
  const sde::Chain chain = make_chain(c, steps);
  const std::optional<finetune::MixtureTilt> tilt = closed_form(c, data.model);
  s.begin("evaluate", 6);

  const finetune::Reward reward = load_reward(s, data.model);
  nn::Classifier judge;
  if (judged) judge = load_classifier(s, data.model, c.judge, judge_checkpoint, classifier_sections);
  const nn::Classifier* asked = judged ? &judge : nullptr;
  const nn::Network base = load_network(s, data.model, base_checkpoint, base_sections);
  const nn::Network tuned = load_tuned(s, data.model);
  const sde::Field base_field = finetune::guided(finetune::field_of(base), c.finetune.guidance),
                   tuned_field = finetune::guided(finetune::field_of(tuned), c.finetune.guidance);

  // Base and tuned samples come from noise of their own, SDE and ODE samples of one model from the same
  // initial noise.
  const std::uint64_t seed = seed_of(c, Purpose::evaluate);
  const sde::NoiseKey base_key{seed, 0}, tuned_key{seed, static_cast<std::uint64_t>(count)};
  std::vector<Samples> sets;
  const auto done = [&](std::string name, const Tensor& x) {
    sets.push_back(look_at(std::move(name), x, reward, asked));
    s.step(static_cast<std::int64_t>(sets.size()), sets.back().name);
  };
  const auto drawn = [&](const sde::Field& field, bool noisy, const sde::NoiseKey& key) {
    Tensor x;
    s.rounds(noisy ? steps : flow_steps, noisy ? c.sampler.steps : ode_steps(c), [&] {
      x = noisy ? sde::sample(field, chain, shape, count, labels, key, DType::f32, s.device)
                : sample_ode(c, field, flow_steps, shape, count, labels, key, s.device);
    });
    return x;
  };
  const std::int64_t base_flops_before = flops();
  Tensor base_samples = drawn(base_field, true, base_key);
  const std::int64_t base_flops = (flops() - base_flops_before) / steps;  // of a step
  done("base_sde", base_samples);
  base_samples = Tensor();
  done("base_ode", drawn(base_field, false, base_key));
  std::optional<ControlError> control;
  if (tilt && c.evaluate.control_error && c.prediction == "velocity" && !s.planning())
    control.emplace(*tilt, chain, count);
  sde::PathVisitor visit;
  if (control)
    visit = [&](int k, std::int64_t first, const Tensor& x, const Tensor& v, const Tensor& b) {
      control->look(k, first, x, v, b);
    };
  const std::int64_t path_flops_before = flops();
  sde::Paths paths = sde::sample_paths(tuned_field, base_field, chain, shape, count, labels, tuned_key,
                                       {.device = s.device, .visit = visit});
  if (s.planning()) {  // the tuned network at every step, the base at those with noise
    const auto noisy_steps = [](const sde::Chain& of) {
      return std::count_if(of.std.begin(), of.std.end(), [](double v) { return v > 0; });
    };
    const auto rows = [&](const sde::Chain& of) { return count * (of.steps() + noisy_steps(of)); };
    const sde::Chain whole = make_chain(c);
    s.counter->add(rows(whole) - rows(chain), false, false);
    const std::int64_t tuned_flops =
        (flops() - path_flops_before - base_flops * noisy_steps(chain)) / chain.steps();  // of a step
    s.assumed_flops += tuned_flops * (whole.steps() - chain.steps()) +
                       base_flops * (noisy_steps(whole) - noisy_steps(chain));
  }
  done("tuned_sde", paths.terminal);
  paths.terminal = Tensor();
  done("tuned_ode", drawn(tuned_field, false, tuned_key));
  Opinion real;
  if (judged) {
    const memory::TagScope scope(memory::Tag::data);
    std::vector<float> values = data.model.values;
    real = ask(judge, Tensor::from(values, Shape{data.model.count, dim}, s.device));
  }
  Json base_likelihood, tuned_likelihood;
  if (c.evaluate.likelihood.count > 0) {  // unguided: guidance samples from no density of the data
    const data::Dataset& scored = judged ? data.judge : data.model;
    base_likelihood = likelihood(c, finetune::field_of(base), scored, s.device);
    tuned_likelihood = likelihood(c, finetune::field_of(tuned), scored, s.device);
  }
  if (s.planning()) return;

  const double unit = deviation(data.model), lambda = c.reward.multiplier;
  const int d = static_cast<int>(dim), projections = static_cast<int>(c.evaluate.projections);
  std::vector<double> log_weights;
  for (const double r : sets[0].reward) log_weights.push_back(lambda * r);
  const std::vector<double> weights = finetune::normalised_weights(log_weights);
  std::vector<double> exact;
  if (tilt) {
    exact.resize(static_cast<std::size_t>(count * dim));
    tilt->target().sample(seed, 0, count, exact.data());
  }

  const auto targeted = [&](std::int32_t label) {
    return std::find(c.reward.targets.begin(), c.reward.targets.end(), label) != c.reward.targets.end();
  };
  const bool frechet = judged && !c.reward.targets.empty();
  std::vector<double> real_features, base_features;
  std::size_t rows = 0;
  if (frechet) {
    const auto width = static_cast<std::size_t>(real.width);
    real_features = features_where(real, [&](std::size_t i) { return targeted(data.model.labels[i]); });
    base_features =
        features_where(sets[0].opinion, [&](std::size_t i) { return targeted(sets[0].opinion.label[i]); });
    rows = std::min(
        {real_features.size() / width, base_features.size() / width, static_cast<std::size_t>(count)});
  }
  const auto distance = [&](const std::vector<double>& features) {
    const auto n = rows * static_cast<std::size_t>(real.width);
    return rows < 2 ? std::numeric_limits<double>::quiet_NaN()
                    : finetune::frechet_distance(static_cast<int>(real.width), std::span(features).first(n),
                                                 std::span(real_features).first(n));
  };

  Json out = Json::object();
  Json& samples = out["samples"] = Json::object();
  for (const Samples& set : sets) {
    Json& j = samples[set.name] = Json::object();
    j["reward"] = json_estimate(finetune::mean_estimate(set.reward));
    j["diversity"] = json_number(std::sqrt(finetune::mean_pairwise_squared_distance(d, set.values)));
    if (judged) {
      std::vector<double> frequency(static_cast<std::size_t>(data.model.classes));
      double share = 0;
      for (const std::int32_t l : set.opinion.label)
        frequency[l] += 1.0 / static_cast<double>(count),
            share += targeted(l) ? 1.0 / static_cast<double>(count) : 0.0;
      if (frechet) j["target_frequency"] = json_number(share);
      j["class_frequency"] = numbers(frequency);
    }
    const bool of_base = set.name.starts_with("base");
    if (frechet && set.name != "base_ode")
      j["frechet_to_real_targets"] = json_number(distance(of_base ? base_features : set.opinion.feature));
    if (!of_base)
      j["w1_to_reweighted_base"] = json_number(
          finetune::sliced_wasserstein1(d, set.values, sets[0].values, projections, seed, {}, weights) /
          unit);
    if (tilt) {
      const std::vector<double> modes =
          finetune::mode_weights(of_base ? tilt->base() : tilt->target(), set.values);
      if (!of_base) {
        j["w1_to_closed_form"] =
            json_number(finetune::sliced_wasserstein1(d, set.values, exact, projections, seed) / unit);
        j["mode_weights"] = numbers(modes);
        j["mode_error_to_closed_form"] = json_number(largest_difference(modes, tilt->target().weights()));
        j["mode_error_to_reweighted_base"] = json_number(largest_difference(
            modes, finetune::mode_weights(tilt->target(), sets[0].values,
                                          finetune::ModeAssignment::responsibility, weights)));
      } else {
        j["mode_weights"] = numbers(modes);
      }
    }
  }
  if (frechet) {
    const double own = distance(base_features);
    out["frechet"] = {{"rows", rows},
                      {"ratio_sde", json_number(distance(sets[2].opinion.feature) / own)},
                      {"ratio_ode", json_number(distance(sets[3].opinion.feature) / own)}};
  }
  const Estimate log_z = finetune::log_z_estimate(log_weights),
                 tilted = finetune::weighted_mean(sets[0].reward, log_weights);
  out["importance"] = {{"log_z", json_estimate(log_z)},
                       {"effective_samples", json_number(finetune::effective_sample_size(log_weights))},
                       {"tilted_reward", json_estimate(tilted)},
                       {"kl_of_tilt", json_number(lambda * tilted.value - log_z.value)}};
  std::vector<double> g;
  for (std::size_t i = 0; i < paths.log_ratio.size(); ++i)
    g.push_back(lambda * sets[2].reward[i] - paths.log_ratio[i]);
  out["path_kl"] = {{"control_cost", json_estimate(finetune::mean_estimate(paths.cost))},
                    {"girsanov", json_estimate(finetune::mean_estimate(paths.log_ratio))},
                    {"log_z_from_tuned_paths", json_estimate(finetune::log_z_estimate(g))},
                    {"effective_samples_of_tuned_paths", json_number(finetune::effective_sample_size(g))}};
  if (c.evaluate.likelihood.count > 0) {
    out["likelihood_of_base"] = base_likelihood;
    out["likelihood_of_tuned"] = tuned_likelihood;
  }
  if (tilt) {
    Json& j = out["closed_form"] = Json::object();
    j["tilted_reward"] =
        json_number(lambda > 0 ? tilt->expected_reward() / lambda : std::numeric_limits<double>::quiet_NaN());
    j["kl"] = json_number(tilt->kl()), j["log_z"] = json_number(tilt->log_z());
    j["mode_weights"] = numbers({tilt->target().weights().begin(), tilt->target().weights().end()});
    std::vector<double> again(exact.size());
    tilt->target().sample(seed, static_cast<std::uint64_t>(count), count, again.data());
    j["w1_between_two_exact_sets"] =
        json_number(finetune::sliced_wasserstein1(d, again, exact, projections, seed) / unit);
    if (control) {
      j["relative_control_error"] = json_number(control->overall());
      j["relative_control_error_by_step"] = control->by_step();
    }
  }
  out["count"] = count;
  out["unit_of_distances"] = json_number(unit);
  s.directory->write("evaluation.json", out.dump(2) + "\n");
  s.end("reward " + short_number(finetune::mean_estimate(sets[0].reward).value) + " -> " +
        short_number(finetune::mean_estimate(sets[2].reward).value));
}

}  // namespace costate::cli
