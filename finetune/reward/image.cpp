#include <costate/autograd/ops.h>
#include <costate/finetune/reward/image.h>

#include <cmath>

namespace costate::finetune {
namespace {

void check_picture(const Var& x, const char* name) {
  require(x.rank() == 4 && x.numel() > 0, name, " reward: x has shape ", x.shape(),
          "; expected pictures (rows, height, width, channels)");
}

Var mean_of_rows(const Var& x) { return mean(reshape(x, {x.extent(0), -1}), 1); }

// Lines of pixels in reverse: rows of a picture, or columns, are rows of a table that are gathered backwards.
Var flip(const Var& x, MirrorAxis axis) {
  const std::int64_t n = x.extent(0), h = x.extent(1), w = x.extent(2), c = x.extent(3);
  const bool rows = axis == MirrorAxis::up_down;
  const std::int64_t groups = rows ? n : n * h, length = rows ? h : w, width = rows ? w * c : c;
  std::vector<std::int32_t> index;
  index.reserve(static_cast<std::size_t>(groups * length));
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t i = length; i-- > 0;) index.push_back(static_cast<std::int32_t>(g * length + i));
  const Var table = reshape(x, {groups * length, width});
  return reshape(gather_rows(table, Tensor::from(index, {groups * length}, x.device())), x.shape());
}

// Sum over neighbours along `axis`, (rows,).
Var variation(const Var& x, int axis, double eps) {
  const std::int64_t n = x.extent(axis);
  const Var d = sub(narrow(x, axis, 1, n - 1), narrow(x, axis, 0, n - 1));
  return sum(reshape(affine(sqrt(affine(square(d), 1.0, eps * eps)), 1.0, -eps), {x.extent(0), -1}), 1);
}

void check_scale(double scale, const char* name) {
  require(std::isfinite(scale) && scale != 0, name, " reward: the scale is ", scale, ", expected a number other than 0");
}

}  // namespace

Reward brightness_reward(double scale) {
  check_scale(scale, "brightness");
  return {"brightness", [scale](const Var& x) {
            check_picture(x, "brightness");
            return affine(mean_of_rows(x), scale, 0.0);
          }};
}

Reward symmetry_reward(MirrorAxis axis, double scale) {
  check_scale(scale, "symmetry");
  return {"symmetry", [axis, scale](const Var& x) {
            check_picture(x, "symmetry");
            return affine(mean_of_rows(square(sub(x, flip(x, axis)))), -scale, 0.0);
          }};
}

Reward total_variation_reward(double scale, double eps) {
  check_scale(scale, "total variation");
  require(eps > 0 && std::isfinite(eps), "total variation reward: eps is ", eps, ", expected a positive number");
  return {"total_variation", [scale, eps](const Var& x) {
            check_picture(x, "total variation");
            const std::int64_t h = x.extent(1), w = x.extent(2);
            require(h > 1 || w > 1, "total variation reward: a picture of one pixel has no neighbours");
            Var v;
            if (h > 1) v = variation(x, 1, eps);
            if (w > 1) v = v.defined() ? add(v, variation(x, 2, eps)) : variation(x, 2, eps);
            return affine(v, -scale * static_cast<double>(x.extent(0)) / static_cast<double>(x.numel()), 0.0);
          }};
}

}  // namespace costate::finetune
