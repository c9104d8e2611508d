// A low-rank adapter beside a frozen weight (Hu et al., "LoRA", arXiv 2106.09685): the layer computes
//   y = W x + scale B A x,   scale = alpha / rank,
// with A (rank, in) and B (out, rank). A convolution's A is a convolution of the same window into `rank`
// channels and its B a 1 x 1 convolution. B starts at zero: a fresh adapter changes nothing. nn/lora.h puts
// adapters into models.
#pragma once
#include <costate/autograd/tape.h>

namespace costate::nn {

struct Lora {
  Var down;          // A: (rank, in), or (rank, kh, kw, in); undefined: there is no adapter
  Var up;            // B: (out, rank), or (out, 1, 1, rank)
  double scale = 0;  // alpha / rank
  bool defined() const { return down.defined(); }
  std::int64_t rank() const { return down.extent(0); }
};

}  // namespace costate::nn
