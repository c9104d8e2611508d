#include "table.h"

namespace costate::cuda {

const Kernels kernel_table = {
    "cuda",
    true,
    pointwise,
    copy,
    fill,
    cast,
    sum,
    sum_squares,
    matmul,
    matmul_workspace,
    multiplies_bf16,
    // The libraries read parameters as they lie.
    [](DType, Precision, std::int64_t, std::int64_t) { return std::int64_t{0}; },
    [](DType, Precision, bool, std::int64_t, std::int64_t, const void*, void*) {},
    conv,
    conv_workspace,
    [](const ConvShape&) { return std::int64_t{0}; },
    [](const ConvShape&, const void*, void*) {},
    upsample,
    pool_squares,
    softmax,
    softmax_vjp,
    layer_norm,
    layer_norm_vjp,
    group_norm,
    group_norm_vjp,
    modulated_layer_norm,
    modulated_layer_norm_vjp,
    attention,
    attention_vjp,
    gather_rows,
    scatter_add_rows,
    random,
    dropout,
    noisy_step,
    matching,
    adamw,
};

}  // namespace costate::cuda
