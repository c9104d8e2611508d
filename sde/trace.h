// The trace of a Jacobian J = dv/dx, row by row, from products a -> J^T a alone (what a pullback gives); tr J = tr J^T.
//
//   exact       sum_i e_i^T J^T e_i: d products.
//   hutchinson  mean of g_j^T J^T g_j over m probes with E[g g^T] = I (Hutchinson 1990). Unbiased; with symmetric part
//               S = (J + J^T)/2 its variance is 2 |S|_F^2/m for Gaussian probes, and 2 (|S|_F^2 - sum_i S_ii^2)/m for
//               Rademacher probes.
//   hutch_pp    Hutch++ (Meyer, Musco, Musco, Woodruff, arXiv 2010.09649, Algorithm 1): with s = floor(m/3) probes S and
//               Q = orth(J^T S), the trace of J^T on the range of Q exactly, and Hutchinson's estimate from the other
//               m - 2 s probes on its complement:
//                 tr(Q^T J^T Q) + mean_j g_j'^T J^T g_j',   g_j' = (I - Q Q^T) g_j.
//               Unbiased; exact when the range of Q is that of J^T, so also when s >= d.
#pragma once
#include <costate/sde/field.h>

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace costate::sde {

enum class TraceMethod : std::uint8_t { exact, hutchinson, hutch_pp };
enum class Probe : std::uint8_t { rademacher, gaussian };  // entries +-1, each with probability 1/2; entries N(0, 1)

struct TraceOptions {
  TraceMethod method = TraceMethod::exact;
  int probes = 1;  // m: the products with J^T an estimate may take; unused by exact. hutch_pp needs at least 3
  Probe probe = Probe::rademacher;
};
std::string_view name(TraceMethod method);
// The method of this name; any other word is an Error(argument) with a suggestion.
TraceMethod trace_method(std::string_view name);

// The products with J^T that one estimate in dimension d takes: d for exact, m for hutchinson, and for hutch_pp m, or 2 d
// where s >= d. Throws Error(argument) for options outside their range.
std::int64_t trace_products(const TraceOptions& options, std::int64_t dim);

// The traces (rows) of the Jacobians of one row each, in double precision. `product` maps a (rows, ...), of the shape and
// type of `like`, to J^T a. Probe j of row i is sample key.first_sample + i of Stream::probe at step first_probe + j, so
// that it does not depend on how a batch is cut. Zeros on the meta device.
std::vector<double> trace(const std::function<Tensor(const Tensor& a)>& product, const Tensor& like,
                          const TraceOptions& options, const NoiseKey& key, std::uint32_t first_probe = 0);

}  // namespace costate::sde
