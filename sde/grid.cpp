#include <costate/sde/grid.h>
#include <costate/sde/words.h>

#include <array>
#include <cmath>

namespace costate::sde {
namespace {

constexpr std::array<std::string_view, 3> kSpacings = {"linspace", "leading", "trailing"};
constexpr std::array<std::string_view, 7> kGrids = {"uniform",  "quadratic", "shifted", "karras",
                                                    "linspace", "leading",   "trailing"};

// t_k = 1 - left(1 - k/K), where `left` maps [0, 1] to itself.
template <class Left>
std::vector<double> grid_of(const char* what, int steps, const Left& left) {
  require(steps >= 1, "sde::", what, ": the number of steps is ", steps, ", but at least 1 is needed");
  std::vector<double> t(static_cast<std::size_t>(steps) + 1);
  for (int k = 0; k <= steps; ++k) t[static_cast<std::size_t>(k)] = 1 - left(static_cast<double>(steps - k) / steps);
  t.front() = 0, t.back() = 1;
  return t;
}

// Half to even, as NumPy rounds.
int rounded(double v) { return static_cast<int>(std::nearbyint(v)); }

}  // namespace

std::vector<double> uniform_grid(int steps) {
  require(steps >= 1, "sde::uniform_grid: the number of steps is ", steps, ", but at least 1 is needed");
  std::vector<double> t(static_cast<std::size_t>(steps) + 1);
  for (int k = 0; k <= steps; ++k) t[static_cast<std::size_t>(k)] = static_cast<double>(k) / steps;
  return t;
}

std::vector<double> quadratic_grid(int steps) {
  return grid_of("quadratic_grid", steps, [](double u) { return u * u; });
}

std::vector<double> shifted_grid(int steps, double shift) {
  require(shift > 0 && std::isfinite(shift), "sde::shifted_grid: the shift is ", shift, ", expected a positive number");
  return grid_of("shifted_grid", steps, [&](double u) { return shift * u / (1 + (shift - 1) * u); });
}

std::vector<double> karras_grid(const Schedule& schedule, int steps, double sigma_min, double sigma_max, double rho) {
  require(steps >= 1, "sde::karras_grid: the number of steps is ", steps, ", but at least 1 is needed");
  require(sigma_min > 0 && std::isfinite(sigma_max) && (steps == 1 ? sigma_max >= sigma_min : sigma_max > sigma_min),
          "sde::karras_grid: sigma_min is ", sigma_min, " and sigma_max ", sigma_max,
          ", expected 0 < sigma_min < sigma_max");
  require(rho >= 1 && std::isfinite(rho), "sde::karras_grid: rho is ", rho, ", expected at least 1");
  const PathPoint noise = schedule.at(0);
  require(noise.alpha * sigma_max <= noise.beta * (1 + 1e-12), "sde::karras_grid: sigma_max is ", sigma_max,
          ", but on the ", schedule.description(), " path the noise is at most ", noise.beta / noise.alpha,
          " times the data");
  const double high = std::pow(sigma_max, 1 / rho), low = std::pow(sigma_min, 1 / rho);
  std::vector<double> t;
  for (int k = 0; k < steps; ++k) {
    const double sigma = k == 0 ? sigma_max : std::pow(high + (low - high) * k / (steps - 1), rho);
    t.push_back(time_of_log_snr(schedule, -std::log(sigma)));
    require(k == 0 || t.back() > t[static_cast<std::size_t>(k) - 1], "sde::karras_grid: level ", k, ", sigma ", sigma,
            ", has the time of the one before it, ", t.back(),
            ", in double precision; take fewer steps or a larger sigma_min");
  }
  t.push_back(1);
  return t;
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
    require(steps[k] >= 0 && steps[k] < total, "sde::grid_of_timesteps: timestep ", steps[k], " is outside 0 to ",
            total - 1);
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
  require(shift > 0 && std::isfinite(shift), "sde::flow_sigmas: shift ", shift, "; expected a positive number");
  const auto shifted = [&](double s) { return shift * s / (1 + (shift - 1) * s); };
  const double first = 1.0, last = double_shift ? shifted(1.0 / total) : 1.0 / total;  // shifted(1) = 1
  std::vector<double> out;
  for (int k = 0; k < n; ++k) out.push_back(shifted(n == 1 ? first : first + (last - first) * k / (n - 1)));
  out.push_back(0);
  return out;
}

std::string_view name(GridKind kind) { return kGrids[static_cast<std::size_t>(kind)]; }

GridKind grid_kind(std::string_view word) { return static_cast<GridKind>(word_index(word, kGrids, "a time grid")); }

std::vector<double> time_grid(GridKind kind, const Schedule& schedule, int steps, const GridOptions& o) {
  const GridOptions standard;
  const auto only = [&](bool used, bool given, const char* option, const char* whose) {
    require(used || !given, "sde::time_grid: ", option, " applies to ", whose, " only, but the grid is ", name(kind));
  };
  const bool karras = kind == GridKind::karras, timesteps_of_model = kind > GridKind::karras;
  only(!karras && !timesteps_of_model, o.start != standard.start, "start", "uniform, quadratic and shifted grids");
  only(kind == GridKind::shifted, o.shift != standard.shift, "shift", "the shifted grid");
  only(karras, o.sigma_min != standard.sigma_min || o.sigma_max != standard.sigma_max || o.rho != standard.rho,
       "sigma_min, sigma_max or rho", "the karras grid");
  only(timesteps_of_model, o.train_timesteps != standard.train_timesteps, "train_timesteps",
       "linspace, leading and trailing grids");
  only(kind == GridKind::leading, o.steps_offset != standard.steps_offset, "steps_offset", "the leading grid");
  if (karras) return karras_grid(schedule, steps, o.sigma_min, o.sigma_max, o.rho);
  if (timesteps_of_model)
    return grid_of_timesteps(timesteps(timestep_spacing(name(kind)), o.train_timesteps, steps, o.steps_offset),
                             o.train_timesteps);
  require(o.start >= 0 && o.start < 1, "sde::time_grid: start is ", o.start, ", expected 0 <= start < 1");
  std::vector<double> t = kind == GridKind::uniform     ? uniform_grid(steps)
                          : kind == GridKind::quadratic ? quadratic_grid(steps)
                                                        : shifted_grid(steps, o.shift);
  for (double& v : t) v = o.start + (1 - o.start) * v;
  t.back() = 1;
  return t;
}

}  // namespace costate::sde
