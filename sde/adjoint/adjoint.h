// Gradients through a process: of the terminal cost g(x_K), and of the running costs if there are any, with respect to x_0
// and to the parameters. Methods, for K steps:
//
//   method           states kept                        steps    gradient
//   store_all        K                                  K        the discrete adjoint: exact for the steps as they are taken
//   segments         K/s + s - 1                        < 2 K    the same bits
//   binomial         c                                  least    the same bits
//   binomial_online  c                                  near it  the same bits
//   two_level        c, and K/s on disk                 < r K    the same bits
//   reversible       1                                  K undone the same up to rounding; reversible solvers only
//   interpolated     K/s                                K        the continuous adjoint along the stored states: O(h)-close
//   backsolve        1                                  K        the continuous adjoint along states solved backwards: O(h)-close
//                                                                if that is stable, wrong without warning if it is not
//   forward          1, and as many tangents as there   K        the same up to rounding, of the parameters alone
//                    are numbers in the parameters
#pragma once
#include <costate/sde/process.h>

#include <span>
#include <string_view>

namespace costate::sde {

enum class AdjointMethod : std::uint8_t {
  store_all,
  segments,
  binomial,
  binomial_online,
  two_level,
  reversible,
  interpolated,
  backsolve,
  forward,
};
std::span<const AdjointMethod> adjoint_methods();
std::string_view name(AdjointMethod method);
// The method of this name; any other word is an Error(argument) with a suggestion.
AdjointMethod adjoint_method(std::string_view name);
// Whether a method's gradient is, bit for bit, that of store_all.
bool bitwise_exact(AdjointMethod method);

struct AdjointOptions {
  AdjointMethod method = AdjointMethod::store_all;
  int segment = 0;      // segments, two_level, interpolated: steps from one kept state to the next; 0: see checkpoints.h
                        // (interpolated: 1)
  int slots = 0;        // binomial, binomial_online, two_level: states in memory; 0: 2 + log2 K
  std::string scratch;  // two_level: the folder of its file; "": see ScratchFile
  // two_level of states on a cuda device: they go to memory of the host, beside the kernels, instead of to a file, and come back
  // one ahead of their use. Of other states: as ever.
  bool host_memory = false;
  // Called with k and the costate of x_{k+1} before each pullback, k = K-1..0; not for `forward`.
  std::function<void(int k, const Tensor& x, const Tensor& a_next)> visit;
};

// What a computation did: evaluations of the field, reverse sweeps through it, steps taken again (or undone), and the bytes
// that went to disk.
struct Work {
  std::int64_t evaluations = 0, pullbacks = 0, recomputed = 0, offloaded_bytes = 0;
};

struct Gradient {
  Tensor x;                        // x_K
  Tensor initial;                  // d/dx_0; undefined for `forward`
  std::vector<Tensor> parameters;  // d/dtheta, in the order in which they were watched
  double running_cost = 0;         // summed over rows
  Work work;
};

// `terminal` maps x_K to grad g(x_K). Throws Error(argument) with refusal()'s sentence.
Gradient gradient(const Process& process, const Tensor& x0, const std::function<Tensor(const Tensor& x)>& terminal,
                  const AdjointOptions& options = {});

// Why this process cannot be differentiated by this method, and which one can; empty if it can.
std::string refusal(const Process& process, const AdjointOptions& options);

// What `gradient` will do, without doing it: exact but for offloaded_bytes, which depends on the size of the states.
Work predicted_work(const Process& process, const AdjointOptions& options);

}  // namespace costate::sde
