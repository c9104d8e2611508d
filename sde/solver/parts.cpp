#include <costate/sde/solver/parts.h>

namespace costate::sde {

using Kind = Diffusion::Kind;

namespace {
Var times_of(const Var& x, double t) { return Tensor::full({x.extent(0)}, t, x.dtype(), x.device()); }
}  // namespace

Var drift(const Sde& sde, const Var& x, double t, const Tensor& labels) {
  Var b = sde.drift(x, times_of(x, t), labels);
  require(b.shape() == x.shape(), "sde: the drift maps shape ", x.shape(), " to ", b.shape());
  return b;
}

Sigma sigma(const Sde& sde, const Var& x, double t, const Tensor& labels) {
  const Diffusion& d = sde.diffusion;
  Sigma s{d.kind, 0, {}};
  switch (d.kind) {
    case Kind::none:
      break;
    case Kind::additive:
      s.number = d.sigma(t);
      break;
    case Kind::matrix:
      s.value = d.matrix(t);
      require(s.value.shape() == Shape{x.extent(1), d.noise_dim}, "sde: the diffusion matrix has shape ", s.value.shape(),
              " where states of shape ", x.shape(), " and noise of dimension ", d.noise_dim, " expect ",
              Shape{x.extent(1), d.noise_dim});
      break;
    case Kind::diagonal:
      s.value = d.diagonal(x, times_of(x, t), labels);
      require(s.value.shape() == x.shape(), "sde: the diagonal diffusion maps shape ", x.shape(), " to ", s.value.shape());
      break;
  }
  return s;
}

Sigma combine(double a, const Sigma& first, double b, const Sigma& second) {
  Sigma s{first.kind, a * first.number + b * second.number, {}};
  if (first.value.defined()) s.value = axpby(a, first.value, b, second.value);
  return s;
}

Var diffuse(const Var& x, double s, const Sigma& sigma, const Var& w) {
  switch (sigma.kind) {
    case Kind::none:
      return x;
    case Kind::additive:
      return w.defined() ? axpby(1, x, s * sigma.number, w) : x;
    case Kind::matrix:
      return axpby(1, x, s, matmul(w, sigma.value, false, true));
    case Kind::diagonal:
      return multiply_add(sigma.value, s == 1 ? w : s * w, x);
  }
  return x;
}

Var stage(double a, const Var& x, double c, const Var& b, double s, const Sigma& sigma, const Var& w) {
  if (sigma.kind == Kind::additive)
    return w.defined() ? chain_step(a, x, c, b, s * sigma.number, w) : axpby(a, x, c, b);
  if (sigma.kind == Kind::matrix) return chain_step(a, x, c, b, s, matmul(w, sigma.value, false, true));
  return diffuse(axpby(a, x, c, b), s, sigma, w);
}

}  // namespace costate::sde
