// Gradients over a batch: chunks of rows, each of which one thread carries through its whole trajectory and back.
//
// Rows are cut by chunk_rows of the batch (field.h) and chunks' gradients are added in an order that depends on shapes alone:
// the bits are those of any number of threads.
#pragma once
#include <costate/sde/adjoint/adjoint.h>

namespace costate::sde {

// `process_of(first, rows)` is the process of rows first, first + 1, ..., with their noise and labels; all have equally many
// steps and the same parameters. `terminal(first, x)` maps their x_K to grad g by row. Both are called from several threads
// at once, and each row has to be on its own.
//
// x and d/dx_0 are put together along axis 0, gradients of parameters and running costs are added. Work is that of a call on
// the whole batch, whatever the chunks: what each row goes through (offloaded bytes are those of all rows).
// Throws Error(argument) with refusal()'s sentence; `options.visit` is refused, as there is no order of rows to visit in.
Gradient batch_gradient(const Tensor& x0, const std::function<Process(std::int64_t first, std::int64_t rows)>& process_of,
                        const std::function<Tensor(std::int64_t first, const Tensor& x)>& terminal,
                        const AdjointOptions& options = {});

}  // namespace costate::sde
