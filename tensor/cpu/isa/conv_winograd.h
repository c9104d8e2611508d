// Convolution with 3 x 3 filters and stride 1 by Winograd's F(4x4, 3x3), forward and data gradient; see
// conv_transform.h.
//
// The result is cut into tiles of 4 x 4 pixels. A block of tiles is transformed channel by channel,
//   v[product][tile][channel],
// 36 matrix products with the transformed filters u give m[product][tile][filter], which is transformed back.
// The data gradient is the same with the filters turned by 180 degrees and their two channel axes exchanged.
//     u[product][panel][channel][filter in panel],    the layout of conv_pack: panels as in gemm_pack.h, a line
//                                                     between products
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/parallel.h>

#include "conv_transform.h"
#include "gemm_pack.h"
#include "gemm_tile.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return ceil_div(n, multiple) * multiple;
}

// The tiles of one image of a batch, counted through the batch, and where they lie in an array (n, height,
// width, channels).
struct Tiling {
  std::int64_t height, width, channels;  // of the array
  std::int64_t down, across;             // tiles of an image
  std::int64_t top, left;                // of tile (0, 0), in pixels of the array; negative: in the padding

  // Where the side x side pixels at the tile lie; those outside of the array at `zeros` (`channels` of them).
  template <int side>
  void pixels(const float* array, const float* zeros, std::int64_t tile, const float** at) const {
    const std::int64_t image = tile / (down * across), y = tile / across % down * winograd::result + top,
                       x = tile % across * winograd::result + left;
    for (std::int64_t i = 0; i < side; ++i)
      for (std::int64_t j = 0; j < side; ++j)
        at[i * side + j] = y + i < 0 || y + i >= height || x + j < 0 || x + j >= width
                               ? zeros
                               : array + ((image * height + y + i) * width + x + j) * channels;
  }
};

// The planes of one block of transformed tiles: rows and planes are a few elements longer than needed, so
// that neither fall into the same few sets of the first-level cache.
struct Planes {
  std::int64_t row, plane;
  Planes(std::int64_t tiles, std::int64_t channels)
      : row(round_up(channels, tile_columns<float>) + 16),
        plane(tiles * row + (tiles * row / 16 % 2 == 0 ? 16 : 0)) {}
  std::int64_t size() const { return winograd::products * plane; }
};

// out[product][channel] of one tile from its pixels (from x from), for every channel; the row is filled up
// with zeros to whole vectors.
template <int from, class F>
void transform_tile(const float* const* at, std::int64_t channels, float* out, std::int64_t plane,
                    const F& f) {
  constexpr int W = lanes<float>;
  std::int64_t c = 0;
  const auto put = [&](int i, int j, winograd::V value) {
    store(out + (i * winograd::tile_side + j) * plane + c, value);
  };
  for (; c + W <= channels; c += W)
    winograd::both_axes<from, winograd::tile_side>(
        f, [&](int i, int j) { return load(at[i * from + j] + c); }, put);
  const int rest = static_cast<int>(channels - c);
  if (rest > 0)
    winograd::both_axes<from, winograd::tile_side>(
        f, [&](int i, int j) { return load_first(at[i * from + j] + c, rest); }, put);
}

struct WinogradConv {
  std::int64_t n, k, m;  // images, channels that are summed over, filters
  Tiling source;
  std::int64_t height, width;  // of the result
  bool turned;                 // the data gradient

  explicit WinogradConv(const ConvShape& s) : n(s.n), turned(s.pass == ConvShape::Pass::data_gradient) {
    k = turned ? s.out_channels : s.channels, m = turned ? s.channels : s.out_channels;
    height = turned ? s.height : s.out_height, width = turned ? s.width : s.out_width;
    source = {turned ? s.out_height : s.height,
              turned ? s.out_width : s.width,
              k,
              ceil_div(height, 4),
              ceil_div(width, 4),
              turned ? s.top - 2 : -s.top,
              turned ? s.left - 2 : -s.left};
    panels = ceil_div(m, N);
    tiles = n * source.down * source.across;
    // Blocks of tiles whose v and m stay in the second-level cache, as long as the filters u, which are read
    // once a block, do too; then larger ones.
    const std::int64_t budget = larger(block_bytes, packed_size() * 4);
    const std::int64_t most =
        larger(tile_rows, budget / (4 * winograd::products * (k + m)) / tile_rows * tile_rows);
    blocks = ceil_div(tiles, most);
    if (blocks > 1) blocks += blocks % 2;
  }

  static constexpr int W = lanes<float>, N = tile_columns<float>;
  static constexpr std::int64_t block_bytes = 1000000, staged_from = 4000000;
  std::int64_t panels, tiles, blocks;

  // The transformed filters of one product, and a line: the 36 that are written at a time then fall into different sets of
  // the first-level cache.
  std::int64_t filter_plane() const { return panels * k * N + 16; }
  std::int64_t packed_size() const { return winograd::products * filter_plane(); }

  // Whole blocks to threads, or, when the filters are so many that each block's are read from memory, all
  // threads to every block.
  bool staged() const { return packed_size() * 4 >= staged_from || blocks < 2; }
  std::int64_t slots() const { return staged() ? 1 : smaller(threads(), blocks); }
  std::int64_t block_tiles() const { return ceil_div(tiles, blocks); }
  std::int64_t slot_size() const {
    return round_up(Planes(block_tiles(), k).size() + Planes(block_tiles(), panels * N).size(), 16);
  }
  std::int64_t workspace_size() const { return slots() * slot_size() + round_up(k, 16); }

  void pack(const float* w, float* u) const {
    const std::int64_t groups = ceil_div(k, W);
    parallel_for(panels * groups, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t at = begin; at < end; ++at)
        for (int v = 0; v < N; v += W) pack_square(w, at / groups, v, at % groups * W, u);
    });
  }

  void run(const float* in, const float* u, const float* bias, float* out, float* workspace) const {
    float* const zeros = workspace + slots() * slot_size();
    for (std::int64_t c = 0; c < k; ++c) zeros[c] = 0;
    const std::int64_t parts = slots();
    parallel(parts, [&](std::int64_t slot) {
      for (std::int64_t i = blocks * slot / parts; i < blocks * (slot + 1) / parts; ++i)
        block(in, zeros, u, bias, out, tiles * i / blocks, tiles * (i + 1) / blocks,
              workspace + slot * slot_size());
    });
  }

 private:
  // The filters of W columns of a panel, from v on, for the W channels from `channel` on.
  void pack_square(const float* w, std::int64_t panel, int v, std::int64_t channel, float* u) const {
    using winograd::V;
    const std::int64_t column = panel * N + v;
    const int columns = static_cast<int>(larger(0, smaller(W, m - column)));
    const std::int64_t channels = smaller(W, k - channel);
    // Forward, the filters lie one behind the other: their elements [tap][channel][filter].
    alignas(64) float taps[9 * W * W];
    if (!turned) {
      if (columns < W)
        for (float& e : taps) e = 0;
      for (int t = 0; t < 9; ++t) {
        const float* const from = w + (column * 9 + t) * k + channel;
        float* const to = taps + t * W * W;
        int j = 0;
        for (; j + 4 <= columns; j += 4) transpose_four(from + j * 9 * k, 9 * k, channels, to + j, W);
        for (; j < columns; ++j)
          for (std::int64_t c = 0; c < channels; ++c) to[c * W + j] = from[j * 9 * k + c];
      }
    }
    for (std::int64_t c = 0; c < channels; ++c)
      winograd::both_axes<winograd::filter, winograd::tile_side>(
          winograd::filter_transform,
          [&](int i, int j) -> V {
            const int t = i * 3 + j;
            if (!turned) return load(taps + (t * W + c) * W);
            return columns ? load_first(w + ((channel + c) * 9 + 8 - t) * m + column, columns) : V{};
          },
          [&](int i, int j, V value) {
            store(u + (i * winograd::tile_side + j) * filter_plane() + (panel * k + channel + c) * N + v, value);
          });
  }

  void block(const float* in, const float* zeros, const float* u, const float* bias, float* out,
             std::int64_t first, std::int64_t last, float* memory) const {
    const Planes v_planes(block_tiles(), k), m_planes(block_tiles(), panels * N);
    float* const v = memory;
    float* const products = memory + v_planes.size();
    const std::int64_t count = last - first, row_blocks = ceil_div(count, tile_rows);
    parallel_for(count, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float* at[winograd::products];
        source.pixels<winograd::tile_side>(in, zeros, first + i, at);
        transform_tile<winograd::tile_side>(at, k, v + i * v_planes.row, v_planes.plane,
                                            winograd::image_transform);
      }
    });
    parallel_for(winograd::products * panels, panels, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t product = i / panels, panel = i % panels;
        const int vectors = m - panel * N > W ? 2 : 1;
        TileCall<float> call;
        call.k = k, call.lda = v_planes.row, call.ldc = m_planes.row, call.accumulate = false;
        call.b = u + product * filter_plane() + panel * k * N, call.ldb = N;
        for (std::int64_t r = 0; r < row_blocks; ++r) {
          const std::int64_t row = count * r / row_blocks, rows = count * (r + 1) / row_blocks - row;
          call.a = v + product * v_planes.plane + row * v_planes.row;
          call.c = products + product * m_planes.plane + row * m_planes.row + panel * N;
          choose_tile<float>(static_cast<int>(rows), vectors, false)(call);
        }
      }
    });
    parallel_for(count, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        finish_tile(products + i * m_planes.row, m_planes.plane, bias, first + i, out);
    });
  }

  void finish_tile(const float* products, std::int64_t plane, const float* bias, std::int64_t tile,
                   float* out) const {
    using winograd::V;
    const std::int64_t image = tile / (source.down * source.across),
                       y = tile / source.across % source.down * 4, x = tile % source.across * 4;
    const int rows = static_cast<int>(smaller(4, height - y)),
              columns = static_cast<int>(smaller(4, width - x));
    float* const corner = out + ((image * height + y) * width + x) * m;
    for (std::int64_t o = 0; o < m; o += W) {
      const int count = static_cast<int>(smaller(W, m - o));
      const V shift = !bias ? V{} : count == W ? load(bias + o) : load_first(bias + o, count);
      winograd::both_axes<winograd::tile_side, winograd::result>(
          winograd::result_transform,
          [&](int i, int j) { return load(products + (i * winograd::tile_side + j) * plane + o); },
          [&](int i, int j, V value) {
            if (i >= rows || j >= columns) return;
            float* const to = corner + (i * width + j) * m + o;
            if (count == W)
              store(to, value + shift);
            else
              store_first(to, count, value + shift);
          });
    }
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
