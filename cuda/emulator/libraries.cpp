// The emulator's libraries: the kernels themselves.
#include "../table.h"

namespace costate::cuda {

// Declines products of an odd length, as a library may decline a shape: both ways are run by the tests.
bool library_product(const LibraryProduct& p) {
  if (p.k % 2) return false;
  tiled_library_product(p);
  return true;
}

// Convolutions without bias, of strides above 1: the others are declined.
bool library_conv(const ConvCall& call) {
  if (call.shape.stride == 1) return false;
  ConvCall without = call;
  without.bias = nullptr;
  tiled_conv(without);
  return true;
}
std::int64_t library_conv_workspace(const ConvShape&) { return 0; }

}  // namespace costate::cuda
