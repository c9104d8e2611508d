// Products and convolutions without libraries: the kernels themselves.
#include "../table.h"

namespace costate::cuda {

void matmul(const MatmulCall& call) {
  tiled_matmul(call);
  if (call.row_sums) row_sums(call);
}
std::int64_t matmul_workspace(const MatmulShape&) { return 0; }
bool multiplies_bf16() { return false; }
void conv(const ConvCall& call) { tiled_conv(call); }
std::int64_t conv_workspace(const ConvShape&, bool) { return 0; }

}  // namespace costate::cuda
