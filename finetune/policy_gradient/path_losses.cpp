#include <costate/finetune/policy_gradient/path_losses.h>

#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

double mean_of(std::span<const double> v) {
  double s = 0;
  for (const double x : v) s += x;
  return s / static_cast<double>(v.size());
}

void require_sets(std::size_t paths, std::int64_t set, const char* what) {
  require(set >= 2 && paths % static_cast<std::size_t>(set) == 0, what, ": sets of ", set, " among ", paths,
          " paths; expected sets of at least 2 that fill the batch");
}

// factor (G - c)^2 in the mean over paths.
PathLoss squares(std::span<const double> G, double c, double factor) {
  PathLoss out;
  const auto n = static_cast<double>(G.size());
  for (const double g : G) {
    out.loss += factor * (g - c) * (g - c) / n;
    out.weight.push_back(2 * factor * (g - c) / n);
    out.log_z_gradient -= out.weight.back();
  }
  return out;
}

// The same about the means of sets; factor 1 is the biased variance.
PathLoss squares_by_sets(std::span<const double> G, std::int64_t set, double factor) {
  PathLoss out;
  const double sets = static_cast<double>(G.size()) / static_cast<double>(set);
  for (std::size_t first = 0; first < G.size(); first += static_cast<std::size_t>(set)) {
    const auto part = G.subspan(first, static_cast<std::size_t>(set));
    const PathLoss own = squares(part, mean_of(part), factor);
    out.loss += own.loss / sets;
    for (const double w : own.weight) out.weight.push_back(w / sets);
  }
  return out;
}

}  // namespace

PathLoss log_variance(std::span<const double> G, std::int64_t set) {
  require_sets(G.size(), set, "log variance");
  return squares_by_sets(G, set, static_cast<double>(set) / static_cast<double>(set - 1));
}

PathLoss moment(std::span<const double> G, double y0) { return squares(G, y0, 1.0); }
PathLoss trajectory_balance(std::span<const double> G, double log_z) { return squares(G, log_z, 0.5); }

PathLoss trajectory_balance_by_sets(std::span<const double> G, std::int64_t set) {
  require_sets(G.size(), set, "trajectory balance");
  return squares_by_sets(G, set, 0.5);
}

PathLoss variance(std::span<const double> G, double log_z) {
  require(G.size() >= 2, "variance: a single path has none");
  std::vector<double> w;
  for (const double g : G) w.push_back(std::exp(g - log_z));
  const double mean = mean_of(w), n = static_cast<double>(G.size());
  PathLoss out;
  for (const double x : w) {
    out.loss += (x - mean) * (x - mean) / (n - 1);
    out.weight.push_back(2 * (x - mean) * x / (n - 1));  // d w/d L = -w
  }
  return out;
}

PathLoss cross_entropy(std::span<const double> log_weight, std::span<const double> L, double log_z) {
  require(log_weight.size() == L.size() && !L.empty(), "cross entropy: ", log_weight.size(), " weights for ", L.size(),
          " paths");
  PathLoss out;
  const auto n = static_cast<double>(L.size());
  for (std::size_t i = 0; i < L.size(); ++i) {
    out.weight.push_back(std::exp(log_weight[i] - log_z) / n);
    out.loss -= out.weight.back() * L[i];
  }
  return out;
}

double log_mean_exp(std::span<const double> v) {
  require(!v.empty(), "log_mean_exp: there are no values");
  const double top = *std::max_element(v.begin(), v.end());
  double s = 0;
  for (const double x : v) s += std::exp(x - top);
  return top + std::log(s / static_cast<double>(v.size()));
}

double effective_share(std::span<const double> v) {
  require(!v.empty(), "effective_share: there are no values");
  const double top = *std::max_element(v.begin(), v.end());
  double s = 0, square = 0;
  for (const double x : v) {
    const double w = std::exp(x - top);
    s += w, square += w * w;
  }
  return s * s / (static_cast<double>(v.size()) * square);
}

}  // namespace costate::finetune
