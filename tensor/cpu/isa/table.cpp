#include "table.h"

#define COSTATE_TEXT_(x) #x
#define COSTATE_TEXT(x) COSTATE_TEXT_(x)

namespace costate::cpu::COSTATE_ISA {

const Kernels kernels = {
    "cpu (" COSTATE_TEXT(COSTATE_ISA) ")", false,
    pointwise, copy, fill, cast, sum, sum_squares, matmul, matmul_workspace, multiplies_bf16, packed_bytes, pack_b, conv,
    conv_workspace, conv_packed_bytes, conv_pack, upsample, pool, softmax, softmax_vjp, layer_norm,
    layer_norm_vjp, group_norm, group_norm_vjp, modulated_layer_norm, modulated_layer_norm_vjp, attention, attention_vjp,
    gather_rows, scatter_add_rows, random, dropout, noisy_step, matching, adamw,
};

}  // namespace costate::cpu::COSTATE_ISA
