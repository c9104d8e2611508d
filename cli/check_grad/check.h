// Whether gradients through a path are right: the stored gradient in double precision against central differences of the
// cost, and every other adjoint method against the stored one.
//
// The distance between a gradient g in n numbers and differences D_i along random unit vectors u_i is
//   sqrt(n mean_i (D_i - <g, u_i>)^2) / max(|g|, sqrt(n mean_i D_i^2)),
// which estimates |g - exact|/|exact|, as E <e, u>^2 = |e|^2/n for every e. D is Richardson's extrapolation
// (16 D(h/4) - D(h))/15 of D(h) = (f(x + h u) - f(x - h u))/(2 h), at the step of a geometric sequence where neighbouring
// extrapolations agree. Its tolerance is 1e-6 of truncation and 32 times the rounding of f divided by h.
#pragma once
#include <costate/sde/adjoint/adjoint.h>

#include <array>
#include <limits>
#include <string>
#include <vector>

#include "progress.h"

namespace costate::cli {

// g(x_K), the sum over rows, with a gradient that may be of another making than the value: that is what is checked.
struct TerminalCost {
  std::string name = "terminal cost";
  std::function<Tensor(const Tensor& x)> value;     // (rows,), of the type of x
  std::function<Tensor(const Tensor& x)> gradient;  // of the shape and type of x
  double rounding = 0x1p-53;  // relative error of a value from x in double precision: 0x1p-24 where it is rounded to single
};

// A process with these parameters, and its running cost at step k, summed over rows (null: none), computed forwards.
struct CheckedPath {
  sde::Process process;
  std::function<double(int k, const Tensor& x)> running_cost;
};

struct CheckedProblem {
  std::string process;             // its name in the rows
  Tensor x0;                       // f64
  std::vector<Tensor> parameters;  // f64, in the order in which the process watches them
  // Of the element type of the parameters, f64 or f32.
  std::function<CheckedPath(const std::vector<Tensor>& parameters)> path;
  TerminalCost terminal;
};

// Tolerances of the methods, against store_all: equal bits (replayed steps); 1e-10 (forward); for reversible 1e-9 and
// 10 K 2^-53 times the factor by which undoing all steps is measured to amplify what is off in the last state.
struct CheckSettings {
  int directions = 4;
  std::uint64_t seed = 0;  // of the directions
  // |g32 - g64|/|g64|: single precision rounds to 6e-8, which K steps of a network multiply by its condition; 1e-3 leaves
  // four digits for that. Infinite: reported, not judged.
  double single_precision = 1e-3;
};

struct CheckRow {
  enum class Verdict { holds, fails, reported, refused };
  std::string process, method, against;
  Verdict verdict = Verdict::refused;
  double distance = 0;
  double tolerance = std::numeric_limits<double>::infinity();  // infinite: not judged; 0: equal bits
  std::string refusal;  // why there is nothing to compare
  std::vector<std::array<double, 2>> directions;  // <g, u_i> and D_i
  std::int64_t peak_bytes = 0;  // the parameters, and all that the gradient asked for
  sde::Work work;
  double seconds = 0;  // 0: nothing of its own was computed
};
// "holds", "same bits" where that was the question, ...
std::string verdict_text(const CheckRow& row);

// The rows of one process, in order: the terminal cost's gradient at x_K, store_all in x_0 and in the parameters, the other
// methods, and store_all in single precision. Throws Error(numerical) where the cost is not finite.
std::vector<CheckRow> check_methods(const CheckedProblem& problem, const CheckSettings& settings, Progress& progress);

// One sentence about the first row that fails; "" where none does.
std::string first_failure(const std::vector<CheckRow>& rows);

}  // namespace costate::cli
