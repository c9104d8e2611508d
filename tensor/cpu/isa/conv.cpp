// The convolutions of one instruction set. ConvShape and ConvCall (tensor/kernels.h) are the contract.
#include "conv_plain.h"
#include "table.h"

namespace costate::cpu::COSTATE_ISA {

void conv(const ConvCall& call) {
  if (call.shape.dtype == DType::f32)
    PlainConv<float>(call.shape).run(call);
  else
    PlainConv<double>(call.shape).run(call);
}
std::int64_t conv_workspace(const ConvShape&, bool) { return 0; }
std::int64_t conv_packed_bytes(const ConvShape&) { return 0; }
void conv_pack(const ConvShape&, const void*, void*) {}

}  // namespace costate::cpu::COSTATE_ISA
