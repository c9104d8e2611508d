// Time grids: K + 1 strictly increasing times in [0, 1] for the K steps of a chain, from noise to data, the last one 1.
// Which spacing is good depends on the path; all of them work on every path.
#pragma once
#include <costate/sde/schedule.h>

namespace costate::sde {

// 0, 1/K, ..., 1 (the ends exactly). Every grid throws Error(argument) unless K >= 1.
std::vector<double> uniform_grid(int steps);
// 1 - t = (1 - k/K)^2: finer towards the data (the "quadratic" subsequence of DDIM, arXiv 2010.02502, Appendix D.2).
std::vector<double> quadratic_grid(int steps);
// 1 - t = s u/(1 + (s - 1) u) with u = 1 - k/K and the shift s > 0: for s > 1 finer towards the noise, as large pictures
// want it (Esser et al., arXiv 2403.03206, eq. 23; there sigma = 1 - t). s = 1 is uniform.
std::vector<double> shifted_grid(int steps, double shift);
// sigma_k = (sigma_max^{1/rho} + k/(K-1) (sigma_min^{1/rho} - sigma_max^{1/rho}))^rho for k = 0..K-1, then 0 (Karras et
// al., arXiv 2206.00364, eq. 5), where sigma is the path's beta/alpha: the noise of x_1 + sigma x_0. Throws unless 0 <
// sigma_min <= sigma_max (equal only for K = 1), rho >= 1, and the path is as noisy as sigma_max at t = 0.
std::vector<double> karras_grid(const Schedule& schedule, int steps, double sigma_min = 0.002, double sigma_max = 80,
                                double rho = 7);

// Our time of a timestep of a discrete model with T = `timesteps`, and the other way round (diffusion.h).
double time_of_timestep(double timestep, int timesteps);
double timestep_of_time(double t, int timesteps);
// The timesteps at which diffusers asks a model for n steps, in the order of sampling (descending), with its
// rounding (half to even). steps_offset is added by `leading` only.
enum class TimestepSpacing { linspace, leading, trailing };
TimestepSpacing timestep_spacing(std::string_view name);
std::vector<int> timesteps(TimestepSpacing spacing, int train_timesteps, int n, int steps_offset = 0);
// The grid of a chain through these timesteps, ending at t = 1. Throws unless they descend within 0..T-1.
std::vector<double> grid_of_timesteps(const std::vector<int>& timesteps, int train_timesteps);

// The n + 1 noise levels of FlowMatchEulerDiscreteScheduler, from 1 to 0: sigma = shift s/(1 + (shift - 1) s)
// over s uniform in [1/T, 1], and 0 behind them. `double_shift` repeats what the library's present version
// does when it sets its timesteps: the ends of s have been shifted once already (diffusers issue 13243). t =
// 1 - sigma.
std::vector<double> flow_sigmas(int n, double shift = 1, bool double_shift = false, int train_timesteps = 1000);

// The grids by name.
enum class GridKind { uniform, quadratic, shifted, karras, linspace, leading, trailing };
std::string_view name(GridKind kind);
// The kind of this name; any other word is an Error(argument) with a suggestion.
GridKind grid_kind(std::string_view name);

struct GridOptions {
  double start = 0;            // uniform, quadratic, shifted: these times squeezed into [start, 1], 0 <= start < 1
  double shift = 1;            // shifted
  double sigma_min = 0.002;    // karras
  double sigma_max = 80;       // karras
  double rho = 7;              // karras
  int train_timesteps = 1000;  // linspace, leading, trailing: T
  int steps_offset = 0;        // leading
};
// Throws Error(argument) for an option outside its range, and for one given (not at its default) to a grid that would not
// look at it.
std::vector<double> time_grid(GridKind kind, const Schedule& schedule, int steps, const GridOptions& options = {});

}  // namespace costate::sde
