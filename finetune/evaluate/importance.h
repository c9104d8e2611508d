// Importance weights in log space. For samples of q and log w = log dp/dq + reward:
//   log Z = log mean w,   ESS = (sum w)^2 / sum w^2.
// For a tuned chain G = r(x_K) - sum_k log(p^u/p) (path_kl.h) is such a log weight: log mean e^G estimates
// log Z for any control, E[G] <= log Z bounds it from below, and Var G = 0 exactly at the optimum of a
// memoryless chain.
#pragma once
#include <costate/finetune/evaluate/estimate.h>

#include <span>
#include <vector>

namespace costate::finetune {

// log sum exp without overflow; -infinity for an empty span or where every entry is -infinity.
double log_sum_exp(std::span<const double> values);

// exp(log w) scaled to sum to 1. Throws Error(numerical) on NaN, +infinity, or when every weight is 0.
std::vector<double> normalised_weights(std::span<const double> log_weights);

// Effective sample size, between 1 and n.
double effective_sample_size(std::span<const double> log_weights);

// log mean w with the delta method's standard error std(w)/(mean(w) sqrt(n)). Biased downwards by about half
// of the error's square.
Estimate log_z_estimate(std::span<const double> log_weights);

// sum w f/sum w with the standard error sqrt(sum (w (f - mean))^2)/sum w of a self-normalised estimate.
Estimate weighted_mean(std::span<const double> values, std::span<const double> log_weights);

}  // namespace costate::finetune
