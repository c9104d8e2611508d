#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace costate::sde {
namespace {

constexpr std::array<std::string_view, 4> kLaws = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"};
constexpr std::array<std::string_view, 3> kSpacings = {"linspace", "leading", "trailing"};

template <class Words>
std::size_t word_index(std::string_view word, const Words& words, const char* what) {
  std::string list;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == word) return i;
    list += (i ? ", " : "") + std::string(words[i]);
  }
  const std::string near = nearest_of(word, words);
  fail(Fault::argument, {"\"", word, "\" is not ", what, "; there are ", list,
                         near.empty() ? std::string() : "; did you mean \"" + near + "\"?"});
}

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

// Half to even, as NumPy rounds.
int rounded(double v) { return static_cast<int>(std::nearbyint(v)); }

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

double time_of_timestep(double timestep, int n) { return 1 - (timestep + 1) / n; }
double timestep_of_time(double t, int n) { return n * (1 - t) - 1; }

TimestepSpacing timestep_spacing(std::string_view word) {
  return static_cast<TimestepSpacing>(word_index(word, kSpacings, "a timestep spacing"));
}

std::vector<int> timesteps(TimestepSpacing spacing, int total, int n, int offset) {
  require(total >= 1 && n >= 1 && n <= total, "sde::timesteps: ", n, " steps of a model with ", total,
          " timesteps; expected 1 to as many");
  std::vector<int> out(static_cast<std::size_t>(n));
  for (int k = 0; k < n; ++k) {
    int& i = out[static_cast<std::size_t>(n - 1 - k)];  // ascending from the data
    if (spacing == TimestepSpacing::linspace)
      i = n == 1 ? 0 : rounded(static_cast<double>(total - 1) * k / (n - 1));
    else if (spacing == TimestepSpacing::leading)
      i = rounded(static_cast<double>(k) * (total / n)) + offset;
    else
      out[static_cast<std::size_t>(k)] = rounded(total - k * (static_cast<double>(total) / n)) - 1;
  }
  return out;
}

std::vector<double> grid_of_timesteps(const std::vector<int>& steps, int total) {
  require(!steps.empty(), "sde::grid_of_timesteps: there are no timesteps");
  std::vector<double> t;
  for (std::size_t k = 0; k < steps.size(); ++k) {
    require(steps[k] >= 0 && steps[k] < total, "sde::grid_of_timesteps: timestep ", steps[k],
            " is outside 0 to ", total - 1);
    require(k == 0 || steps[k] < steps[k - 1], "sde::grid_of_timesteps: timestep ", steps[k], " comes after ",
            steps[k - (k > 0)], ", but they must descend");
    t.push_back(time_of_timestep(steps[k], total));
  }
  t.push_back(1);
  return t;
}

std::vector<double> flow_sigmas(int n, double shift, bool double_shift, int total) {
  require(n >= 1 && total >= 1, "sde::flow_sigmas: ", n, " steps of ", total,
          " timesteps; expected at least 1 of each");
  require(shift > 0 && std::isfinite(shift), "sde::flow_sigmas: shift ", shift,
          "; expected a positive number");
  const auto shifted = [&](double s) { return shift * s / (1 + (shift - 1) * s); };
  const double first = 1.0, last = double_shift ? shifted(1.0 / total) : 1.0 / total;  // shifted(1) = 1
  std::vector<double> out;
  for (int k = 0; k < n; ++k) out.push_back(shifted(n == 1 ? first : first + (last - first) * k / (n - 1)));
  out.push_back(0);
  return out;
}

}  // namespace costate::sde
