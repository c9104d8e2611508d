// Where one head of one sample lies.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct Head {
  std::int64_t row_out, keys, queries, width;
  T scale;
  std::int64_t at_q, at_k, at_v, at_out, at_sum;  // offsets of this head

  Head(const AttentionCall& call, std::int64_t task)
      : row_out(call.heads * call.width), keys(call.keys), queries(call.queries), width(call.width),
        scale(T(1) / scalar::sqrt(static_cast<T>(call.width))) {
    const std::int64_t sample = task / call.heads, first = task % call.heads * width;
    at_q = sample * queries * call.row_q + first;
    at_k = sample * keys * call.row_k + first;
    at_v = sample * keys * call.row_v + first;
    at_out = sample * queries * row_out + first;
    at_sum = task * queries;
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
