// The weight gradient of a convolution with 3 x 3 filters and stride 1 by Winograd's F(4x4, 3x3); see
// conv_transform.h:
//   dw = G^T [sum over tiles (B^T x B) * (A dy A^T)] G.
// A chunk of tiles is transformed, x into v[product][tile][channel] and dy into m[product][tile][filter].
// Then, for a few filters and channels at a time, 36 matrix products over the tiles of the chunk are
// transformed back together: what they give is 9 numbers a filter and channel, and the 36 are never stored.
#pragma once
#include "conv_winograd.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

struct WinogradWeight {
  std::int64_t n, channels, filters;
  Tiling x, y;
  std::int64_t tiles, chunks, panels, row_blocks;

  static constexpr int W = lanes<float>, N = tile_columns<float>;
  static constexpr std::int64_t chunk_bytes = 3000000;

  explicit WinogradWeight(const ConvShape& s) : n(s.n), channels(s.channels), filters(s.out_channels) {
    const std::int64_t down = ceil_div(s.out_height, 4), across = ceil_div(s.out_width, 4);
    x = {s.height, s.width, channels, down, across, -s.top, -s.left};
    y = {s.out_height, s.out_width, filters, down, across, 0, 0};
    tiles = n * down * across;
    const std::int64_t most = larger(64, chunk_bytes / (4 * winograd::products * (channels + filters)));
    chunks = ceil_div(tiles, most);
    panels = ceil_div(channels, N), row_blocks = ceil_div(filters, tile_rows);
  }
  std::int64_t chunk_tiles() const { return ceil_div(tiles, chunks); }
  std::int64_t workspace_size() const {
    return Planes(chunk_tiles(), channels).size() + Planes(chunk_tiles(), filters).size() +
           round_up(larger(channels, filters), 16);
  }

  void run(const float* image, const float* cotangent, float* dw, float* workspace) const {
    const Planes v_planes(chunk_tiles(), channels), m_planes(chunk_tiles(), filters);
    float* const v = workspace;
    float* const m = v + v_planes.size();
    float* const zeros = m + m_planes.size();
    for (std::int64_t c = 0; c < larger(channels, filters); ++c) zeros[c] = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const std::int64_t first = tiles * chunk / chunks, count = tiles * (chunk + 1) / chunks - first;
      parallel_for(count, 4, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const float* at[winograd::products];
          x.pixels<winograd::tile_side>(image, zeros, first + i, at);
          transform_tile<winograd::tile_side>(at, channels, v + i * v_planes.row, v_planes.plane,
                                              winograd::image_transform);
          y.pixels<winograd::result>(cotangent, zeros, first + i, at);
          transform_tile<winograd::result>(at, filters, m + i * m_planes.row, m_planes.plane,
                                           winograd::cotangent_transform);
        }
      });
      parallel(panels * row_blocks, [&](std::int64_t task) {
        const std::int64_t block = task % row_blocks, row = filters * block / row_blocks;
        part(v, v_planes, m, m_planes, count, row, filters * (block + 1) / row_blocks - row,
             task / row_blocks, chunk > 0, dw);
      });
    }
  }

 private:
  // Filters row .. row + rows - 1, channels of one panel.
  void part(const float* v, const Planes& v_planes, const float* m, const Planes& m_planes,
            std::int64_t count, std::int64_t row, std::int64_t rows, std::int64_t panel, bool add,
            float* dw) const {
    using winograd::V;
    alignas(64) float sums[winograd::products][tile_rows][N];
    const std::int64_t column = panel * N;
    const int vectors = channels - column > W ? 2 : 1;
    TileCall<float> call;
    call.k = count, call.lda = m_planes.row, call.ldb = v_planes.row, call.ldc = N, call.accumulate = false;
    const Tile<float> kernel = choose_tile<float>(static_cast<int>(rows), vectors, true);
    for (int i = 0; i < winograd::products; ++i) {
      call.a = m + i * m_planes.plane + row;
      call.b = v + i * v_planes.plane + column;
      call.c = sums[i][0];
      kernel(call);
    }
    for (std::int64_t r = 0; r < rows; ++r)
      for (int part = 0; part < vectors * W; part += W) {
        const int lanes_here = static_cast<int>(smaller(W, channels - column - part));
        float* const to = dw + (row + r) * 9 * channels + column + part;
        winograd::both_axes<winograd::tile_side, winograd::filter>(
            winograd::filter_gradient_transform,
            [&](int i, int j) { return load(&sums[i * winograd::tile_side + j][r][part]); },
            [&](int i, int j, V value) {
              float* const tap = to + (i * 3 + j) * channels;
              if (lanes_here == W)
                store(tap, add ? value + load(tap) : value);
              else
                store_first(tap, lanes_here, add ? value + load_first(tap, lanes_here) : value);
            });
      }
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
