// Group norm and modulated layer norm: of the operand only itself, its means and its reciprocal deviations are kept.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>

#include <utility>

namespace costate {
namespace {

using detail::widened;

enum : int { at_x, at_gamma, at_beta, at_scale, at_shift };

struct GroupNormAttributes {
  double eps;
  std::int64_t groups;
  Activation activation;
  bool defined[5];
};

GroupNormCall call_of(const Tensor& x, const GroupNormAttributes& a) {
  GroupNormCall call;
  call.dtype = x.dtype();
  call.n = x.extent(0), call.channels = x.extent(-1);
  call.spatial = 1;
  for (int axis = 1; axis + 1 < x.rank(); ++axis) call.spatial *= x.extent(axis);
  call.groups = a.groups, call.eps = a.eps, call.activation = a.activation;
  call.x = x.raw();
  return call;
}

// What the rule of group_norm computes for x and for every channel: dx, and the sums over space of h and h xhat, which the
// fused kernel gives in f32 where x is bf16.
struct GroupNormVjp {
  Var dx, sum_h, sum_hx;
};

GroupNormVjp fused_vjp(const Backward& b, const GroupNormAttributes& a, bool want_h, bool want_hx) {
  const Tensor x = widened(b.input_value(at_x)), cotangent = widened(b.cotangent().value());
  GroupNormCall call = call_of(x, a);
  Tensor operands[5];
  const auto raw = [&](int i, bool used) -> const void* {
    if (!a.defined[i] || !used) return nullptr;
    operands[i] = widened(b.input_value(i));
    return operands[i].raw();
  };
  const bool nonlinear = a.activation != Activation::none;
  call.gamma = raw(at_gamma, nonlinear || b.needs(at_x)), call.scale = raw(at_scale, nonlinear || b.needs(at_x));
  call.beta = raw(at_beta, nonlinear), call.shift = raw(at_shift, nonlinear);
  GroupNormVjp r;
  const auto wanted = [&](bool want, const Shape& shape, DType dtype, Var& out) -> void* {
    if (!want) return nullptr;
    out = Var(Tensor::empty(shape, dtype, x.device()));
    return out.value().raw_mutable();
  };
  const Shape sums{call.n, call.channels};
  void* const dx = wanted(b.needs(at_x), x.shape(), x.dtype(), r.dx);
  void* const h = wanted(want_h, sums, arithmetic_of(x.dtype()), r.sum_h);
  void* const hx = wanted(want_hx, sums, arithmetic_of(x.dtype()), r.sum_hx);
  if (x.numel())
    kernels(x).group_norm_vjp(call, b.extra(0).raw(), b.extra(1).raw(), cotangent.raw(), dx, h, hx);
  else
    for (const Var* s : {&r.sum_h, &r.sum_hx})
      if (s->defined()) s->value().fill(0);
  if (r.dx.defined()) r.dx = cast(std::exchange(r.dx, Var()), b.cotangent().dtype());
  return r;
}

// The same in ops, without activation.
GroupNormVjp composed_vjp(const Backward& b, const GroupNormAttributes& a, bool want_h, bool want_hx) {
  const Var& g = b.cotangent();
  const std::int64_t n = g.extent(0), c = g.extent(-1), width = c / a.groups, spatial = n && c ? g.numel() / (n * c) : 1;
  const Shape split{n, spatial, a.groups, width};
  const Var gs = reshape(g, split);
  const auto over_space = [&](const Var& v) { return reshape(sum(v, 1), {n, c}); };
  GroupNormVjp r;
  if (want_h) r.sum_h = over_space(gs);
  if (!b.needs(at_x) && !want_hx) return r;
  const double share = 1.0 / static_cast<double>(spatial * width);
  const auto mean_of = [&](const Var& v) { return affine(sum(sum(v, 3, true), 1, true), share, 0); };
  const Var x = reshape(b.input(at_x), split);
  const Var centred = sub(x, mean_of(x));
  const Var rstd = power(affine(mean_of(square(centred)), 1, a.eps), -0.5);
  const Var xhat = mul(centred, rstd);
  if (want_hx) r.sum_hx = over_space(mul(gs, xhat));
  if (!b.needs(at_x)) return r;
  Var u = gs;
  if (a.defined[at_gamma]) u = mul(u, reshape(b.input(at_gamma), {1, 1, a.groups, width}));
  if (a.defined[at_scale]) u = mul(u, affine(reshape(b.input(at_scale), {n, 1, a.groups, width}), 1, 1));
  r.dx = reshape(mul(rstd, sub(sub(u, mean_of(u)), mul(xhat, mean_of(mul(u, xhat))))), g.shape());
  return r;
}

void group_norm_vjp(Backward& b) {
  const auto& a = b.attributes<GroupNormAttributes>();
  const bool nonlinear = a.activation != Activation::none;
  require(!b.recorded() || !nonlinear,
          "group_norm: second derivatives through a fused activation are not offered; apply the activation as an op of its own");
  const bool scaled = a.defined[at_scale];
  const bool want_h = b.needs(at_beta) || b.needs(at_shift) || (b.needs(at_scale) && a.defined[at_beta]),
             want_hx = b.needs(at_gamma) || b.needs(at_scale);
  GroupNormVjp r;
  if (b.recorded() || (!b.needs(at_x) && !want_hx && !nonlinear)) r = composed_vjp(b, a, want_h, want_hx);
  else r = fused_vjp(b, a, want_h, want_hx);
  // y = (gamma xhat + beta) (1 + scale) + shift
  // What a channel's gradient is made of is cast last.
  const auto operand = [&](int i, const Var& sums) { return cast(b.input(i), sums.dtype()); };
  const auto like_x = [&](const Var& v) { return cast(v, b.cotangent().dtype()); };
  const auto with_scale = [&](const Var& sums) {
    return like_x(sum(scaled ? multiply_add(operand(at_scale, sums), sums, sums) : sums, 0));
  };
  if (b.needs(at_x)) b.add(at_x, std::move(r.dx));
  if (b.needs(at_gamma)) b.add(at_gamma, with_scale(r.sum_hx));
  if (b.needs(at_beta)) b.add(at_beta, with_scale(r.sum_h));
  if (b.needs(at_scale)) {
    Var d = a.defined[at_gamma] ? mul(operand(at_gamma, r.sum_hx), r.sum_hx) : r.sum_hx;
    if (a.defined[at_beta]) d = multiply_add(operand(at_beta, d), r.sum_h, d);
    b.add(at_scale, like_x(d));
  }
  if (b.needs(at_shift)) b.add(at_shift, like_x(r.sum_h));
}
constexpr Rule group_norm_rule{"group_norm", group_norm_vjp};

// Which operands the rule reads for the sake of which.
std::uint32_t saved_operands(const GroupNormAttributes& a, const Var* const (&v)[5]) {
  const auto tracked = [&](int i) { return v[i]->tracked(); };
  bool save[5] = {};
  if (a.activation != Activation::none) {
    for (bool& s : save) s = true;
  } else {
    save[at_x] = tracked(at_x) || tracked(at_gamma) || tracked(at_scale);
    save[at_gamma] = tracked(at_x) || tracked(at_scale);
    save[at_beta] = tracked(at_scale);
    save[at_scale] = tracked(at_x) || tracked(at_gamma) || tracked(at_beta);
  }
  std::uint32_t bits = 0;
  for (int i = 0; i < 5; ++i)
    if (save[i] && a.defined[i]) bits |= save_input(i);
  return bits;
}

void check_like(const char* op, const char* what, const Var& v, const Shape& shape, const Var& x) {
  require(v.shape() == shape && v.dtype() == x.dtype() && v.device() == x.device(), op, ": the ", what, " is ", v.dtype(),
          " of shape ", v.shape(), " on the ", v.device(), "; expected ", x.dtype(), " of shape ", shape, " on the ", x.device());
}

struct ModulatedAttributes {
  double eps;
};

void modulated_vjp(Backward& b) {
  const Var& g = b.cotangent();
  const std::int64_t n = g.extent(0), t = g.extent(1), d = g.extent(2);
  if (b.needs(2)) b.add(2, sum(g, 1));
  if (!b.needs(0) && !b.needs(1)) return;
  if (b.recorded()) {
    // From the operand itself, so that the derivative of rstd is seen too.
    const Var x = b.input(0), centred = sub(x, mean(x, -1, true));
    const Var rstd = power(affine(mean(square(centred), -1, true), 1, b.attributes<ModulatedAttributes>().eps), -0.5);
    const Var xhat = mul(centred, rstd);
    if (b.needs(1)) b.add(1, sum(mul(g, xhat), 1));
    if (!b.needs(0)) return;
    const Var u = mul(g, reshape(affine(b.input(1), 1, 1), {n, 1, d}));
    b.add(0, mul(rstd, sub(sub(u, mean(u, -1, true)), mul(xhat, mean(mul(u, xhat), -1, true)))));
    return;
  }
  const Tensor x = widened(b.input_value(0)), cotangent = widened(g.value());
  Tensor scale, dx, dscale;
  if (b.needs(0)) scale = widened(b.input_value(1)), dx = Tensor::empty_like(x);
  if (b.needs(1)) dscale = Tensor::empty({n, d}, x.dtype(), x.device());
  kernels(x).modulated_layer_norm_vjp(x.dtype(), n, t, d, x.raw(), scale.raw(), b.extra(0).raw(), b.extra(1).raw(),
                                      cotangent.raw(), dx.raw_mutable(), dscale.raw_mutable());
  if (dx.defined()) b.add(0, cast(std::exchange(dx, Tensor()), g.dtype()));
  if (dscale.defined()) b.add(1, cast(std::exchange(dscale, Tensor()), g.dtype()));
}
constexpr Rule modulated_rule{"modulated_layer_norm", modulated_vjp};

}  // namespace

Var group_norm(const Var& x, const Var& gamma, const Var& beta, int groups, double eps, Activation activation, const Var& scale,
               const Var& shift) {
  require(x.defined() && x.rank() >= 2 && is_floating(x.dtype()), "group_norm: the operand is ",
          x.defined() ? Piece(x.dtype()) : Piece("undefined"), " of shape ", x.shape(), "; expected f32 or f64 of shape (n, ..., channels)");
  const std::int64_t n = x.extent(0), channels = x.extent(-1);
  require(groups >= 1 && channels >= 1 && channels % groups == 0, "group_norm: ", channels, " channels cannot be cut into ",
          groups, " groups of equal size");
  require(x.numel() > 0 || n == 0, "group_norm: shape ", x.shape(), " has no elements to take a mean of");
  require(eps >= 0, "group_norm: eps ", eps, " is negative or not a number");
  const Var* const operands[5] = {&x, &gamma, &beta, &scale, &shift};
  GroupNormAttributes a{eps, groups, activation, {}};
  for (int i = 0; i < 5; ++i) a.defined[i] = operands[i]->defined();
  if (gamma.defined()) check_like("group_norm", "gamma", gamma, {channels}, x);
  if (beta.defined()) check_like("group_norm", "beta", beta, {channels}, x);
  if (scale.defined()) check_like("group_norm", "scale", scale, {n, channels}, x);
  if (shift.defined()) check_like("group_norm", "shift", shift, {n, channels}, x);
  const bool tracked = common_tape("group_norm", operands) != nullptr;
  Tensor in[5];
  for (int i = 0; i < 5; ++i) in[i] = widened(operands[i]->value());
  GroupNormCall call = call_of(in[at_x], a);
  call.gamma = in[at_gamma].raw(), call.beta = in[at_beta].raw();
  call.scale = in[at_scale].raw(), call.shift = in[at_shift].raw();
  Tensor out = Tensor::empty_like(in[at_x]);
  Tensor moments[2];
  const std::uint32_t save = tracked ? saved_operands(a, operands) : save_nothing;
  if (save & save_input(at_x))
    for (Tensor& m : moments) m = Tensor::empty({n, groups}, arithmetic_of(x.dtype()), x.device());
  if (out.numel()) kernels(out).group_norm(call, out.raw_mutable(), moments[0].raw_mutable(), moments[1].raw_mutable());
  out = std::exchange(out, Tensor()).to(x.dtype());
  if (!tracked) return Var(std::move(out));
  return record(group_norm_rule, std::move(out), {&x, &gamma, &beta, &scale, &shift}, save, a,
                {moments, moments[0].defined() ? 2u : 0u});
}

Var modulated_layer_norm(const Var& x, const Var& scale, const Var& shift, double eps) {
  require(x.defined() && x.rank() == 3 && x.extent(2) >= 1 && is_floating(x.dtype()), "modulated_layer_norm: the operand is ",
          x.defined() ? Piece(x.dtype()) : Piece("undefined"), " of shape ", x.shape(), "; expected f32 or f64 of shape (n, t, d)");
  require(eps >= 0, "modulated_layer_norm: eps ", eps, " is negative or not a number");
  const std::int64_t n = x.extent(0), t = x.extent(1), d = x.extent(2);
  require(scale.defined() && shift.defined(), "modulated_layer_norm: the ", scale.defined() ? "shift" : "scale",
          " is undefined; layer_norm takes neither");
  check_like("modulated_layer_norm", "scale", scale, {n, d}, x);
  check_like("modulated_layer_norm", "shift", shift, {n, d}, x);
  const Tensor in = widened(x.value()), a = widened(scale.value()), c = widened(shift.value());
  Tensor out = Tensor::empty_like(in);
  Tensor moments[2];
  const bool save = x.tracked() || scale.tracked();
  if (save)
    for (Tensor& m : moments) m = Tensor::empty({n, t}, arithmetic_of(x.dtype()), x.device());
  if (out.numel())
    kernels(out).modulated_layer_norm(in.dtype(), n, t, d, eps, in.raw(), a.raw(), c.raw(), out.raw_mutable(),
                                      moments[0].raw_mutable(), moments[1].raw_mutable());
  out = std::exchange(out, Tensor()).to(x.dtype());
  const std::uint32_t bits = (save ? save_input(0) : 0u) | (x.tracked() ? save_input(1) : 0u);
  return record(modulated_rule, std::move(out), {&x, &scale, &shift}, bits, ModulatedAttributes{eps},
                {moments, save ? 2u : 0u});
}

}  // namespace costate
