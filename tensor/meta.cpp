// The table that computes nothing: a program run on the meta device makes the same requests for memory as on the cpu, and
// no arithmetic. Packed layouts have the sizes that this machine's cpu would choose.
#include <costate/tensor/tensor.h>

namespace costate {

const Kernels detail::meta_table = {
    "meta",
    false,  // ops ask for memory as on the cpu
    [](const PointwiseCall&) {},
    [](const Loop&, std::int64_t, const void*, void*) {},
    [](DType, std::int64_t, double, void*) {},
    [](DType, DType, std::int64_t, const void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, const void*, void*) {},
    [](DType, std::int64_t, const Elements*, double*) {},
    [](const MatmulCall&) {},
    [](const MatmulShape& shape) { return kernels(Device::cpu).matmul_workspace(shape); },
    [] { return kernels(Device::cpu).multiplies_bf16(); },
    [](DType dtype, Precision precision, std::int64_t n, std::int64_t k) {
      return kernels(Device::cpu).packed_bytes(dtype, precision, n, k);
    },
    [](DType, Precision, bool, std::int64_t, std::int64_t, const void*, void*) {},
    [](const ConvCall&) {},
    [](const ConvShape& shape, bool packed) { return kernels(Device::cpu).conv_workspace(shape, packed); },
    [](const ConvShape& shape) { return kernels(Device::cpu).conv_packed_bytes(shape); },
    [](const ConvShape&, const void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, double, const void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, double, const void*, void*) {},
    [](DType, bool, std::int64_t, std::int64_t, const void*, void*) {},
    [](DType, bool, std::int64_t, std::int64_t, const void*, const void*, void*) {},
    [](DType, std::int64_t, std::int64_t, double, const void*, void*, void*) {},
    [](DType, std::int64_t, std::int64_t, const void*, const void*, const void*, void*) {},
    [](const GroupNormCall&, void*, void*, void*) {},
    [](const GroupNormCall&, const void*, const void*, const void*, void*, void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, double, const void*, const void*, const void*, void*, void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, const void*, const void*, const void*, const void*, const void*, void*,
       void*) {},
    [](const AttentionCall&, void*, void*) {},
    [](const AttentionCall&, const void*, const void*, const void*, void*, void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, const std::int32_t*, const void*, void*) {},
    [](DType, std::int64_t, std::int64_t, std::int64_t, const std::int32_t*, const void*, void*) {},
    [](DType, bool, std::uint64_t, std::uint32_t, std::uint64_t, std::uint32_t, std::int64_t, std::int64_t, void*) {},
    [](DType, double, std::uint32_t, std::uint64_t, std::uint32_t, std::uint64_t, std::uint32_t, std::int64_t, std::int64_t,
       const void*, void*) {},
    [](DType, const double*, std::uint64_t, std::uint32_t, std::uint64_t, std::uint32_t, std::int64_t, std::int64_t,
       const void*, const void*, void*) {},
    [](const MatchingCall&, double*, void*) {},
    [](DType, std::int64_t, const Optimised*, const AdamWRates&, const AdamWNow*, const double*, const double*) {},
};

}  // namespace costate
