#include "instructions.h"

#include <costate/tensor/rounding.h>

#include <cmath>
#include <limits>

namespace costate::cuda::emulator {
namespace {

constexpr int lanes = 32;

// What a lane brings to a product, and where its elements lie in the matrices: PTX ISA, "Matrix fragments for mma.m16n8k16 with
// floating point type", whose words these are: a_i, b_i and c_i, groupID = lane / 4, threadID_in_group = lane % 4.
struct Parts {
  std::uint32_t a[4], b[2];
  float c[4];
};
struct Position {
  int row, column;
};
Position of_a(int lane, int i) {
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Position of_b(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4}; }
Position of_c(int lane, int i) { return {i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + (i & 1)}; }

float half_of(std::uint32_t pair, int which) {
  return rounding::from_bf16_bits(static_cast<std::uint16_t>(pair >> 16 * which));
}

// Products of two bf16 are exact in f32; they are added in order of k.
void multiply_together(const void* const* in, void* const* out) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < lanes; ++lane) {
    Parts parts;
    std::memcpy(&parts, in[lane], sizeof parts);
    for (int i = 0; i < 8; ++i) {
      const Position at = of_a(lane, i);
      a[at.row][at.column] = half_of(parts.a[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      const Position at = of_b(lane, i);
      b[at.row][at.column] = half_of(parts.b[i / 2], i % 2);
    }
  }
  for (int lane = 0; lane < lanes; ++lane) {
    Parts parts;
    std::memcpy(&parts, in[lane], sizeof parts);
    for (int i = 0; i < 4; ++i) {
      const Position at = of_c(lane, i);
      for (int k = 0; k < 16; ++k) parts.c[i] += a[at.row][k] * b[k][at.column];
    }
    std::memcpy(out[lane], parts.c, sizeof parts.c);
  }
}

// Every lane gets the addresses of all: it reads its numbers itself, so that the thread sanitizer sees who does.
void share_addresses(const void* const* in, void* const* out) {
  for (int lane = 0; lane < lanes; ++lane)
    for (int other = 0; other < lanes; ++other)
      std::memcpy(static_cast<const void**>(out[lane]) + other, in[other], sizeof(void*));
}

void run(const Copy& c) {
  if (c.from)
    std::memcpy(c.to, c.from, c.bytes);
  else
    std::memset(c.to, 0, c.bytes);
}

}  // namespace

void multiply_add(const std::uint32_t* a, const std::uint32_t* b, float* c, const Place& place) {
  Parts parts;
  std::memcpy(parts.a, a, sizeof parts.a);
  std::memcpy(parts.b, b, sizeof parts.b);
  std::memcpy(parts.c, c, sizeof parts.c);
  combine_bytes(&parts, sizeof parts, c, multiply_together, place);
}

void load_matrices(const void* row, bool transposed, std::uint32_t* pair, const Place& place) {
  constexpr std::size_t bytes = 16;
  if (!is_shared(row, bytes)) stop("a matrix is loaded from what is not shared memory", &place);
  if (reinterpret_cast<std::uintptr_t>(row) % bytes) stop("a row of a matrix is not aligned to 16 bytes", &place);
  const std::uint16_t* rows[lanes];
  combine_bytes(&row, sizeof row, rows, share_addresses, place);
  const int group = lane() / 4, first = lane() % 4 * 2;
  for (int m = 0; m < 4; ++m) {
    const std::uint16_t* const* const of_matrix = rows + 8 * m;
    const std::uint16_t low = transposed ? of_matrix[first][group] : of_matrix[group][first],
                        high = transposed ? of_matrix[first + 1][group] : of_matrix[group][first + 1];
    pair[m] = low | static_cast<std::uint32_t>(high) << 16;
  }
}

void begin_copy(const void* from, void* to, std::size_t bytes, bool there, const Place& place) {
  if (!is_shared(to, bytes)) stop("a copy to what is not shared memory", &place);
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % bytes)
    stop("a copy of what is not aligned to its bytes", &place);
  const Copy copy{there ? from : nullptr, to, bytes};
  if (!defer(copy)) run(copy);
}
void wait_for_copies() {
  for (Copy c; next_deferred(c);) run(c);
}

float exp2_approximate(float x) {
  const float y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
}

}  // namespace costate::cuda::emulator
