// Brownian motion as a pure function of its counter, asked for over intervals: increments of one path, in any order, at any
// resolution, with nothing stored.
//
// Time is laid out in cells t_0 < t_1 < ... < t_N. A cell of length h has the increment w = sqrt(h) e with e the numbers of
// step_noise (Stream::noise, step = index of the cell): a Chain on the same grid and a solver share their noise. Unions of
// cells are sums. Inside a cell the path is refined by halving, with Levy's bridge for the pair (w, H) below: the noise of
// every node of that binary tree is again a pure function of (seed, cell, node), so that a point has the same value
// whichever interval it is asked through.
//
// H is the space-time Levy area of Foster, Lyons and Oberhauser (SIAM J. Numer. Anal. 58, 2020): with W and h the path and
// length of an interval [s, u],
//   H = (1/h) int_s^u (W(r) - W(s)) dr - w/2  ~  N(0, h/12), independent of w,
// and Kloeden and Platen's I_(1,0) = int_s^u (W(r) - W(s)) dr = h (H + w/2).
#pragma once
#include <costate/sde/field.h>

namespace costate::sde {

struct Increment {
  Tensor w;     // W(t1) - W(t0)
  Tensor area;  // H above, of the shape of w; undefined unless asked for
};

class BrownianPath {
 public:
  // `cells`: two or more finite times that increase. Samples are key.first_sample, ...
  BrownianPath(std::vector<double> cells, NoiseKey key);

  // The increment over [t0, t1], whose rows are samples first_sample, first_sample + 1, ...; `shape` (rows, ...), f32 or
  // f64 (f64 holds the same single-precision normals). Elements are independent. Whether the area is asked for does not
  // change w. Ends inside a cell are rounded to multiples of 2^-24 of the cell (w of an interval shorter than that is 0);
  // an end inside a cell costs up to 24 halvings. Throws unless t_0 <= t0 <= t1 <= t_N.
  Increment increment(double t0, double t1, const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu,
                      bool area = false) const;

  // The path of rows row, row + 1, ... of a batch.
  BrownianPath from(std::int64_t row) const;

  const std::vector<double>& cells() const { return *cells_; }
  const NoiseKey& key() const { return key_; }

 private:
  std::shared_ptr<const std::vector<double>> cells_;
  NoiseKey key_;
};

}  // namespace costate::sde
