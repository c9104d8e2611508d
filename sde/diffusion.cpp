#include <costate/sde/diffusion.h>
#include <costate/sde/chain_builder.h>
#include <costate/sde/words.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace costate::sde {
namespace {

constexpr std::array<std::string_view, 4> kLaws = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"};
constexpr std::array<std::string_view, 3> kVariances = {"fixed_small", "fixed_small_log", "fixed_large"};

// n values from low to high, as single-precision libraries compute them: each half from its own end.
std::vector<float> linspace(float low, float high, int n) {
  std::vector<float> v(static_cast<std::size_t>(n), low);
  const float step = n > 1 ? (high - low) / static_cast<float>(n - 1) : 0.0f;
  for (int i = 0; i < n; ++i)
    v[static_cast<std::size_t>(i)] = i < n / 2 || n == 1 ? low + step * static_cast<float>(i)
                                                         : high - step * static_cast<float>(n - 1 - i);
  return v;
}

double cosine_bar(double u) {
  const double c = std::cos((u + 0.008) / 1.008 * std::numbers::pi / 2);
  return c * c;
}

}  // namespace

std::string_view name(BetaLaw law) { return kLaws[static_cast<std::size_t>(law)]; }
BetaLaw beta_law(std::string_view word) {
  return static_cast<BetaLaw>(word_index(word, kLaws, "a law of beta"));
}

std::vector<float> betas(BetaLaw law, int n, double start, double end) {
  require(n >= 1 && n <= 1000000, "sde::betas: the number of timesteps is ", n, ", expected 1 to 1000000");
  const auto low = static_cast<float>(start), high = static_cast<float>(end);
  std::vector<float> b(static_cast<std::size_t>(n));
  if (law == BetaLaw::squaredcos_cap_v2) {
    for (int i = 0; i < n; ++i)
      b[static_cast<std::size_t>(i)] = static_cast<float>(std::min(
          1 - cosine_bar(static_cast<double>(i + 1) / n) / cosine_bar(static_cast<double>(i) / n), 0.999));
    return b;
  }
  require(start > 0 && end >= start && end < 1, "sde::betas: the ", name(law),
          " law needs 0 < beta_start <= beta_end < 1, but "
          "beta_start is ",
          start, " and beta_end is ", end);
  if (law == BetaLaw::linear) return linspace(low, high, n);
  if (law == BetaLaw::scaled_linear) {
    b = linspace(static_cast<float>(std::sqrt(start)), static_cast<float>(std::sqrt(end)), n);
    for (float& v : b) v *= v;
    return b;
  }
  b = linspace(-6.0f, 6.0f, n);
  for (float& v : b) v = 1.0f / (1.0f + std::exp(-v)) * (high - low) + low;
  return b;
}

std::vector<float> alphas_cumprod(const std::vector<float>& betas) {
  std::vector<float> out;
  out.reserve(betas.size());
  double product = 1;
  for (const float b : betas) out.push_back(static_cast<float>(product *= static_cast<double>(1.0f - b)));
  return out;
}

Schedule diffusion_schedule(const std::vector<float>& b, std::string description) {
  require(!b.empty(), "sde::diffusion_schedule: there are no betas");
  for (std::size_t i = 0; i < b.size(); ++i)
    require(b[i] > 0 && b[i] < 1, "sde::diffusion_schedule: beta ", i, " is ", b[i], ", outside (0, 1)");
  const std::vector<float> bar = alphas_cumprod(b);
  require(bar.back() > 0,
          "sde::diffusion_schedule: alpha bar is 0 at the last timestep, where the path has no signal left");
  auto table = std::make_shared<AlphaTable>();
  table->description = std::move(description);
  table->alpha2.assign(bar.begin(), bar.end());
  for (std::size_t i = 0; i < bar.size(); ++i)
    require(bar[i] < (i ? bar[i - 1] : 1.0f),
            "sde::diffusion_schedule: alpha bar does not decrease at timestep ", i,
            " in single precision, where beta is ", b[i]);
  Schedule s;
  s.family = PathFamily::vp_table;
  s.table = std::move(table);
  return s;
}

Schedule diffusion_schedule(BetaLaw law, int n, double start, double end) {
  std::string text = law == BetaLaw::squaredcos_cap_v2
                         ? sentence({"vp_table(", name(law), ", timesteps=", n, ")"})
                         : sentence({"vp_table(", name(law), ", timesteps=", n, ", beta_start=", start,
                                     ", beta_end=", end, ")"});
  return diffusion_schedule(betas(law, n, start, end), std::move(text));
}

Chain ddim(const Schedule& schedule, const std::vector<double>& t, double eta, Parametrisation prediction) {
  require(eta >= 0 && eta <= 1, "sde::ddim: eta is ", eta, ", expected 0 to 1");
  return build_chain(schedule, t, prediction, NoiseLaw{NoiseLaw::Kind::scaled, eta * eta}, Step::exact, "DDIM step",
               [&](const PathPoint& p, const PathPoint& next, double) {
                 const double q = noising_variance(p, next);
                 const double s = eta * next.beta * std::sqrt(q) / p.beta;
                 const double rest = std::sqrt(std::max(0.0, (next.beta - s) * (next.beta + s)));
                 const Affine x1 = conversion(prediction, Parametrisation::x1, p);
                 const Affine noise = conversion(prediction, Parametrisation::epsilon, p);
                 return Coefficients{next.alpha * x1.x + rest * noise.x,
                                     next.alpha * x1.prediction + rest * noise.prediction, s};
               });
}

Chain ddpm_fixed_large(const Schedule& schedule, const std::vector<double>& t, Parametrisation prediction) {
  require(preserves_variance(schedule), "sde::ddpm_fixed_large: defined on variance-preserving paths, but the path is ",
          schedule.description());
  Chain chain = exact_memoryless(schedule, t, prediction);
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const PathPoint p = schedule.at(t[k]), next = schedule.at(t[k + 1]);
    chain.std[k] = next.beta == 0 ? 0.0 : std::sqrt(noising_variance(p, next));
  }
  chain.description = describe("DDPM step of fixed_large variance", chain);
  return chain;
}

DdpmVariance ddpm_variance(std::string_view word) {
  require(word != "learned" && word != "learned_range", "sde::ddpm_variance: ", word,
          " is no Gaussian chain of fixed width: its std is a function of x, the second half of the network's channels, so "
          "that tuned and base steps would have different widths and no finite-width control; there are fixed_small, "
          "fixed_small_log and fixed_large");
  require(word != "fixed_large_log", "sde::ddpm_variance: fixed_large_log is not offered, as what its origin computes is "
          "neither the variance nor its logarithm; there are fixed_small, fixed_small_log and fixed_large");
  return static_cast<DdpmVariance>(word_index(word, kVariances, "a variance of the DDPM step"));
}
std::string_view name(DdpmVariance variance) { return kVariances[static_cast<std::size_t>(variance)]; }

Chain ddpm(const Schedule& schedule, const std::vector<double>& t, DdpmVariance variance, Parametrisation prediction) {
  return variance == DdpmVariance::fixed_large ? ddpm_fixed_large(schedule, t, prediction)
                                               : exact_memoryless(schedule, t, prediction);
}

}  // namespace costate::sde
