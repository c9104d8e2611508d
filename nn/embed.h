// Embeddings of time and class.
#pragma once
#include <costate/nn/linear.h>

namespace costate::nn {

// Fourier features of a time in [0, 1]: [sin(2 pi f_j t), cos(2 pi f_j t)], f_j = 2^(j/2) / 2, j =
// 0..frequencies-1. t (rows,) -> (rows, 2 frequencies). Differentiable in t.
Var time_features(const Var& t, int frequencies);

// A table of class vectors; the last row is the null class (for unconditional use and label dropping).
struct ClassEmbedding {
  Var table;  // (classes + 1, width)
  std::int64_t classes() const { return table.extent(0) - 1; }
  // labels (rows,) of i32, 0..classes; undefined: the null class for every one of `rows`.
  Var operator()(const Tensor& labels, std::int64_t rows) const;
  void visit(const Visitor& v) { v("table", table); }
};
ClassEmbedding make_class_embedding(Init& init, std::int64_t classes, std::int64_t width);

// A fresh copy of labels in which each is replaced by the null class with the given probability, drawn by
// counter (seed, Stream::label, step, first_sample + row), element 1 (labels themselves are chosen with
// element 0): for training that serves classifier-free guidance.
Tensor drop_labels(const Tensor& labels, std::int32_t null_class, double probability, std::uint64_t seed,
                   std::uint64_t first_sample, std::uint32_t step);

}  // namespace costate::nn
