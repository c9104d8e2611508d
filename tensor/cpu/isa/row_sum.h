// The sum of a row.
#pragma once
#include <cstdint>

namespace costate::cpu::COSTATE_ISA {
namespace {

// term(0) + ... + term(n - 1) in sixteen interleaved partial sums, combined pairwise at the end.
template <class T, class Term>
T row_sum(std::int64_t n, const Term& term) {
  constexpr int lanes = 16;
  T part[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += term(i + l);
  for (int l = 0; i < n; ++i, ++l) part[l] += term(i);
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) part[l] += part[l + width];
  return part[0];
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
