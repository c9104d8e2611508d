#include <costate/sde/brownian.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace costate::sde {

namespace {

constexpr int kDepth = 24;
constexpr std::int64_t kTicks = std::int64_t{1} << kDepth;  // of a cell

// A stretch of the path of length h: its w and, where it is needed, H.
struct Stretch {
  double h = 0;
  Tensor w, area;
};

// Neighbours become one. I_(1,0)(s, u) = I_(1,0)(s, t) + (u - t) W(s, t) + I_(1,0)(t, u), in terms of H:
//   h H = h_l H_l + h_r H_r + (h_r w_l - h_l w_r)/2.
Stretch join(const Stretch& left, const Stretch& right) {
  Stretch all;
  all.h = left.h + right.h;
  all.w = add(Var(left.w), Var(right.w)).value();
  if (left.area.defined()) {
    const double l = left.h / all.h, r = right.h / all.h;
    const Var areas = axpby(l, Var(left.area), r, Var(right.area));
    all.area = chain_step(1, areas, r / 2, Var(left.w), -l / 2, Var(right.w)).value();
  }
  return all;
}

struct Normals {
  const Shape& shape;
  DType dtype;
  Device device;
  std::uint64_t first_sample;
  Tensor operator()(std::uint64_t seed, Stream stream, std::uint32_t step) const {
    const Tensor z = Tensor::empty(shape, dtype, device);
    random_normal(z, seed, stream, first_sample, step);
    return z;
  }
};

// A whole cell of length h.
Stretch whole(std::uint64_t seed, std::uint32_t cell, double h, bool area, const Normals& normal) {
  const auto scaled = [&](Stream stream, double deviation) {
    return affine(Var(normal(seed, stream, cell)), deviation, 0).value();
  };
  return {h, scaled(Stream::noise, std::sqrt(h)), area ? scaled(Stream::area, std::sqrt(h / 12)) : Tensor()};
}

// The binary tree of a cell: node 1 is the cell, nodes 2 i and 2 i + 1 are the halves of node i. Node i splits with two
// normal tensors, of streams bridge and area, step i, under a seed that is hashed from the path's seed and the cell.
struct Tree {
  std::uint64_t seed;
  const Normals& normal;

  static std::uint64_t seed_of(std::uint64_t path, std::uint32_t cell) {
    const auto words = Philox{path, Stream::bridge}.words(0, cell, 0);
    return words[0] | (std::uint64_t{words[1]} << 32);
  }

  // The law of the left half given (w, H). On an interval of length 1, W(1/2) has covariance 1/2 with w (variance 1) and
  // 1/8 with H (variance 1/12), hence
  //   w_l = w/2 + (3/2) H + Z/4,   variance left over 1/2 - 1/4 - 3/16 = 1/16.
  // Joining says H = (H_l + H_r)/2 + (w_l - w_r)/4, hence H_l + H_r = H/2 - Z/4; and H_l - H_r ~ N(0, 1/12) is
  // independent of everything above. Lengths h scale all of them by sqrt(h).
  std::array<Stretch, 2> split(const Stretch& node, std::uint32_t index) const {
    const double root = std::sqrt(node.h);
    const Var w(node.w), area(node.area), z(normal(seed, Stream::bridge, index)), y(normal(seed, Stream::area, index));
    const Var left_w = chain_step(0.5, w, 1.5, area, root / 4, z);
    const Var half_sum = axpby(0.25, area, -root / 8, z);
    const double deviation = root / (4 * std::sqrt(3.0));
    return {Stretch{node.h / 2, left_w.value(), axpby(1, half_sum, deviation, y).value()},
            Stretch{node.h / 2, sub(w, left_w).value(), axpby(1, half_sum, -deviation, y).value()}};
  }

  // The part [first, last) of the node, in ticks from its start; the node has `ticks` of them.
  Stretch part(const Stretch& node, std::uint32_t index, std::int64_t ticks, std::int64_t first, std::int64_t last) const {
    if (first == 0 && last == ticks) return node;
    const auto halves = split(node, index);
    const std::int64_t middle = ticks / 2;
    if (last <= middle) return part(halves[0], 2 * index, middle, first, last);
    if (first >= middle) return part(halves[1], 2 * index + 1, middle, first - middle, last - middle);
    return join(part(halves[0], 2 * index, middle, first, middle), part(halves[1], 2 * index + 1, middle, 0, last - middle));
  }
};

// A time as a cell and ticks 0..2^24 - 1 into it; t_N is cell N.
struct Place {
  std::size_t cell;
  std::int64_t tick;
};
Place place_of(double t, const std::vector<double>& cells) {
  const auto above = std::upper_bound(cells.begin(), cells.end(), t);
  const std::size_t cell = static_cast<std::size_t>(above - cells.begin()) - 1;
  if (cell + 1 == cells.size()) return {cell, 0};
  const double share = (t - cells[cell]) / (cells[cell + 1] - cells[cell]);
  const auto tick = static_cast<std::int64_t>(std::llround(share * static_cast<double>(kTicks)));
  return tick == kTicks ? Place{cell + 1, 0} : Place{cell, tick};
}

}  // namespace

BrownianPath::BrownianPath(std::vector<double> cells, NoiseKey key) : key_(key) {
  require(cells.size() >= 2, "BrownianPath: the grid of cells has ", cells.size(), " times, but one cell needs 2");
  require(cells.size() <= (std::size_t{1} << 32), "BrownianPath: ", cells.size(), " times exceed the counter of cells, 2^32");
  for (std::size_t i = 0; i < cells.size(); ++i) {
    require(std::isfinite(cells[i]), "BrownianPath: time ", i, " of the grid of cells is ", cells[i]);
    require(i == 0 || cells[i] > cells[i - 1], "BrownianPath: the times of the cells must increase, but time ", i, " is ",
            cells[i], " after ", i == 0 ? 0.0 : cells[i - 1]);
  }
  cells_ = std::make_shared<const std::vector<double>>(std::move(cells));
}

BrownianPath BrownianPath::from(std::int64_t row) const {
  BrownianPath rows = *this;
  rows.key_ = key_.from(row);
  return rows;
}

Increment BrownianPath::increment(double t0, double t1, const Shape& shape, DType dtype, Device device, bool area) const {
  const std::vector<double>& t = *cells_;
  require(t0 <= t1 && t0 >= t.front() && t1 <= t.back(), "BrownianPath: an increment over [", t0, ", ", t1,
          "] was asked for; expected an interval within [", t.front(), ", ", t.back(), "]");
  const Normals normal{shape, dtype, device, key_.first_sample};
  const Place first = place_of(t0, t), last = place_of(t1, t);
  std::optional<Stretch> sum;
  for (std::size_t cell = first.cell; cell <= last.cell && cell + 1 < t.size(); ++cell) {
    const std::int64_t from = cell == first.cell ? first.tick : 0, to = cell == last.cell ? last.tick : kTicks;
    if (from == to) continue;
    const auto index = static_cast<std::uint32_t>(cell);
    const bool inside = from != 0 || to != kTicks;
    Stretch piece = whole(key_.seed, index, t[cell + 1] - t[cell], area || inside, normal);
    if (inside) piece = Tree{Tree::seed_of(key_.seed, index), normal}.part(piece, 1, kTicks, from, to);
    if (!area) piece.area = {};
    sum = sum ? join(*sum, piece) : piece;
  }
  if (!sum) {
    const Tensor zero = Tensor::zeros(shape, dtype, device);
    return {zero, area ? zero.clone() : Tensor()};
  }
  return {sum->w, sum->area};
}

}  // namespace costate::sde
