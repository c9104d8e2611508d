// Rows of the loop `regression`; the table is that of finetune/regression/value_gradient.h.
#include <algorithm>

#include "objectives/cost.h"

namespace costate::cli {
namespace {

// How many of `steps` lie in first..last.
double count(const std::vector<int>& steps, int first, int last) {
  return static_cast<double>(std::count_if(steps.begin(), steps.end(), [&](int k) { return first <= k && k <= last; }));
}

// The costates of the path from step f on, all of whose states are there.
void add_path_costates(ObjectiveCost& cost, const Config& c, const std::vector<int>& noisy, int K, int f, bool next_in_loss) {
  const std::string& name = c.finetune.objective;
  const bool same = c.finetune.pairing == "same";
  if (name == "socm" || name == "socm_constant") {
    cost.base += 1, cost.state += K - 1;
  } else if (name == "continuous_adjoint") {
    const double tuned = K - f - 1, base = static_cast<double>(noisy.size()) - f - 1;
    cost.state += tuned + base + (same ? 2 : 0);
    cost.base += same || !next_in_loss ? 1 : 2;
  } else {
    const bool full = name == "discrete_adjoint";
    cost.state += K - f - 1 + (full ? count(noisy, f + 1, K - 1) : 0);
    if (same)
      cost.state += full ? 2 : 1;
    else
      cost.base += 1;
    if (name == "socm_adjoint") cost.base += count(noisy, 0, f - 1);  // weights of paths are about all steps
  }
  if (c.finetune.pairing == "alg1") cost.state += 1;
  if (c.finetune.denoised_endpoint) cost.base += 1;
}

// Costates from a value network: what the form `skip` adds to it, and what V_K is.
void add_value(ObjectiveCost& cost, const Config& c, const sde::Chain& chain, const std::vector<int>& noisy,
               double L) {
  const ValueConfig& v = c.finetune.regression.value;
  const int K = chain.steps();
  const double N = static_cast<double>(noisy.size()), pairs = 2 * static_cast<double>(v.pairs);
  const bool stein = c.finetune.objective == "stein", skip = v.form == "skip", ends = noisy.back() == K - 1;
  // V_K is the reward, which has been asked already; its gradient is asked for where step K - 1 has noise.
  cost.reward_gradient = skip || (!stein && ends);
  const double inner = L - (ends ? 1 : 0);  // steps of the loss whose next state is not the last
  if (skip) {
    // sin(pi t/2) r(x1) is nothing at t = 0.
    double later = 0, noiseless = 0;
    for (int k = 0; k < K; ++k)
      if (chain.t[static_cast<std::size_t>(k)] > 0) {
        ++later;
        noiseless += chain.std[static_cast<std::size_t>(k)] == 0;
      }
    cost.base += noiseless, cost.rewards += later;
    if (!stein) cost.state += inner, cost.rewards += inner;
    if (stein && v.pairs > 0) cost.base += pairs * inner, cost.rewards += pairs * inner;
    if (stein && v.pairs == 0) {
      // The states of the loss and those after them, without x_K and where t > 0: all but x_0 where all steps are in it.
      double states = 0;
      std::vector<int> seen(static_cast<std::size_t>(K) + 1);
      for (const int k : noisy) seen[static_cast<std::size_t>(k)] = seen[static_cast<std::size_t>(k) + 1] = 1;
      for (int k = 0; k < K; ++k) states += seen[static_cast<std::size_t>(k)] && chain.t[static_cast<std::size_t>(k)] > 0;
      if (L < N) states *= L / N, cost.kind = ObjectiveCost::Kind::mean;  // pairs of neighbours among the drawn ones are few
      cost.base += states, cost.rewards += states;
    }
  }
  if (stein && ends) cost.rewards += pairs;
  if (v.contraction_every > 0) {
    // 4 I vjps of R rows at each step with noise.
    const double rows = static_cast<double>(4 * v.contraction_iterations * std::min(v.contraction_rows, c.finetune.batch)) /
                        static_cast<double>(c.finetune.batch * v.contraction_every);
    const double states = N - (ends ? 1 : 0);
    if (skip) cost.state += rows * states, cost.rewards += rows * states;
    if (ends) cost.rewards += rows, cost.reward_gradient = true;
    if (skip || ends) cost.kind = ObjectiveCost::Kind::mean;
  }
  cost.stored += 2 * N + L + (cost.reward_gradient && !skip ? 1 : 0);
}

}  // namespace

ObjectiveCost regression_cost(const Config& c) {
  const FinetuneConfig& f = c.finetune;
  const sde::Chain chain = tuned_chain(c);
  const std::vector<int> noisy = noisy_steps(chain);
  const int K = chain.steps();
  const auto N = static_cast<double>(noisy.size());
  const bool replay = f.regression.replay.size > 0, value = f.objective == "pi_ft" || f.objective == "stein";
  const bool weighted = f.objective.starts_with("socm"), reparametrised = weighted && f.objective != "socm_adjoint";
  // The steps of the loss: all with noise; or the last `late` and `early` of the others.
  const double early = static_cast<double>(f.early_steps), late = static_cast<double>(f.late_steps);
  const double L = late == 0 ? N : early + late;

  ObjectiveCost cost;
  cost.policy = K, cost.rewards = 1, cost.reward_gradient = true, cost.stored = K + 1;
  // A replayed collection has costates of all steps.
  const double collected = replay ? N : L;
  if (value) {
    cost.base = N;
  } else {
    if (early == 0 || replay || reparametrised) {
      const auto first = replay || late == 0 ? std::size_t{0} : noisy.size() - static_cast<std::size_t>(late);
      const int at = noisy[first];
      add_path_costates(cost, c, noisy, K, at, first + 1 < noisy.size() && noisy[first + 1] == at + 1);
    } else {
      // The first of `early` places drawn from n without repetition is i with probability C(n-1-i, e-1)/C(n, e).
      const double n = N - late;
      double p = early / n;
      for (std::size_t i = 0; static_cast<double>(i) + early <= n; ++i) {
        const auto index = static_cast<double>(i);
        // Whether the next step is in the loss: drawn as well, or the first of the late ones.
        const double next = index + 1 < n ? (early - 1) / (n - index - 1) : 1.0;
        for (const bool in : {false, true}) {
          ObjectiveCost one;
          add_path_costates(one, c, noisy, K, noisy[i], in);
          const double share = p * (in ? next : 1 - next);
          cost.base += share * one.base, cost.state += share * one.state;
        }
        if (n - index - 1 > 0) p *= (n - index - early) / (n - index - 1);
      }
      cost.kind = ObjectiveCost::Kind::mean;
    }
    const double horizon = noisy.back() + 1;
    cost.stored += reparametrised ? 2 * (horizon + 1) : collected;  // costates, or what the matrices multiply
    cost.stored += weighted ? 2 * N : collected + (replay && f.regression.replay.weighted ? N : 0);
  }
  if (f.keep_activations) cost.policy -= L;
  cost.parameters = L;
  if (replay) {
    const auto passes = static_cast<double>(f.regression.replay.passes);
    for (double* rows : {&cost.policy, &cost.base, &cost.state, &cost.rewards}) *rows /= passes;
    cost.kind = ObjectiveCost::Kind::mean;
    if (f.regression.replay.weighted) cost.policy += N, cost.kind = ObjectiveCost::Kind::most;  // made anew when it must be
  }
  if (value) add_value(cost, c, chain, noisy, L);
  if (replay) cost.stored *= static_cast<double>(f.regression.replay.size) / static_cast<double>(f.batch);
  return with_guidance(cost, c);
}

}  // namespace costate::cli
