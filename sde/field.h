// What samplers and adjoints know of a network: a function of (x, t, labels) whose derivative can be asked for.
#pragma once
#include <costate/autograd/tape.h>
#include <costate/sde/chain.h>
#include <functional>

namespace costate::sde {

// The prediction (of the chain's parametrisation) at x (rows, ...), t (rows,), labels (rows,) of i32 or undefined; of the
// shape of x. Pure and safe to call from several threads at once; every row on its own.
using Field = std::function<Var(const Var& x, const Var& t, const Tensor& labels)>;

// A field with parameters. `frozen` has them as constants; `watch` records them on a tape, appends them to `watched`, and
// returns the field that uses these records.
struct ParametricField {
  Field frozen;
  std::function<Field(Tape& tape, std::vector<Var>& watched)> watch;
};

// Where the noise of a path comes from: rows are samples first_sample, first_sample + 1, ... of a seed.
struct NoiseKey {
  std::uint64_t seed = 0;
  std::uint64_t first_sample = 0;
  NoiseKey from(std::int64_t row) const { return {seed, first_sample + static_cast<std::uint64_t>(row)}; }
};

// Work is cut into chunks of rows that stay on one thread for a whole trajectory. How many rows depends on the batch
// alone, so that results do not depend on threads: at most 64 (its activations stay in cache), and few enough for four
// threads where that leaves at least 32.
constexpr std::int64_t chunk_rows(std::int64_t batch) {
  const std::int64_t quarter = (batch + 3) / 4, rounded = (quarter + 15) / 16 * 16;
  return rounded < 32 ? 32 : rounded > 64 ? 64 : rounded;
}

}  // namespace costate::sde
