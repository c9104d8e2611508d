// Ops over rows: softmax, layer norm, gather.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>

namespace costate {
namespace {

using detail::widened;

struct Rows {
  std::int64_t rows, n;
};
Rows rows_of(const Var& x, const char* op) {
  require(x.defined() && x.rank() >= 1 && x.extent(-1) >= 1, op, ": shape ", x.shape(), " has no last axis with elements");
  require(is_floating(x.dtype()), op, ": the operand is ", x.dtype(), "; expected f32 or f64");
  return {x.numel() / x.extent(-1), x.extent(-1)};
}

template <bool log>
void softmax_vjp(Backward& b) {
  const Var y = b.output();
  const Var& g = b.cotangent();
  if (b.recorded()) {
    if constexpr (log) b.add(0, sub(g, mul(exp(y), sum(g, -1, true))));
    else b.add(0, mul(y, sub(g, sum(mul(y, g), -1, true))));
    return;
  }
  const Tensor out = widened(y.value()), cotangent = widened(g.value());
  Tensor dx = Tensor::empty_like(out);
  kernels(dx).softmax_vjp(out.dtype(), log, y.numel() / y.extent(-1), y.extent(-1), out.raw(), cotangent.raw(),
                          dx.raw_mutable());
  b.add(0, Var(dx.to(y.dtype())));
}
constexpr Rule softmax_rule{"softmax", softmax_vjp<false>};
constexpr Rule log_softmax_rule{"log_softmax", softmax_vjp<true>};

template <bool log>
Var softmax_of(const Var& x) {
  const Rule& rule = log ? log_softmax_rule : softmax_rule;
  const Rows r = rows_of(x, rule.name);
  const Tensor in = widened(x.value());
  Tensor out = Tensor::empty_like(in);
  kernels(out).softmax(in.dtype(), log, r.rows, r.n, in.raw(), out.raw_mutable());
  return record(rule, out.to(x.dtype()), {&x}, save_output);
}

void layer_norm_vjp(Backward& b) {
  const Var& g = b.cotangent();
  if (b.recorded()) {
    // Composed from the operand, so that the derivative of rstd is seen too.
    const Var x = b.input(0);
    const Var centred = sub(x, mean(x, -1, true));
    const Var rstd = power(affine(mean(square(centred), -1, true), 1.0, b.attributes<double>()), -0.5);
    const Var y = mul(centred, rstd);
    b.add(0, mul(rstd, sub(sub(g, mean(g, -1, true)), mul(y, mean(mul(g, y), -1, true)))));
    return;
  }
  const Tensor y = widened(b.output().value()), cotangent = widened(g.value());
  Tensor dx = Tensor::empty_like(y);
  kernels(dx).layer_norm_vjp(y.dtype(), y.numel() / y.extent(-1), y.extent(-1), y.raw(), b.extra(0).raw(), cotangent.raw(),
                             dx.raw_mutable());
  b.add(0, Var(dx.to(g.dtype())));
}
constexpr Rule layer_norm_rule{"layer_norm", layer_norm_vjp};

void check_index(const char* op, const Tensor& index, std::int64_t n, Device device) {
  require(index.defined() && index.rank() == 1 && index.dtype() == DType::i32, op, ": the index is ", index.dtype(),
          " of shape ", index.shape(), "; expected i32 of one axis");
  require(index.device() == device || device == Device::meta, op, ": the index is on the ", index.device(),
          ", the rows on the ", device);
  if (index.device() != Device::cpu) return;  // a device's kernels check it themselves: nothing waits
  for (const std::int32_t i : index.values<std::int32_t>())
    require(i >= 0 && i < n, op, ": index ", i, " is outside 0 to ", n - 1);
}

void gather_vjp(Backward& b) {
  b.add(0, scatter_rows(b.cotangent(), b.extra(0), b.attributes<std::int64_t>()));
}
constexpr Rule gather_rule{"gather_rows", gather_vjp};
void scatter_vjp(Backward& b) { b.add(0, gather_rows(b.cotangent(), b.extra(0))); }
constexpr Rule scatter_rule{"scatter_rows", scatter_vjp};

}  // namespace

Var softmax(const Var& x) { return softmax_of<false>(x); }
Var log_softmax(const Var& x) { return softmax_of<true>(x); }

Var layer_norm(const Var& x, double eps) {
  const Rows r = rows_of(x, "layer_norm");
  require(eps >= 0, "layer_norm: eps ", eps, " is negative");
  const Tensor in = widened(x.value());
  Tensor out = Tensor::empty_like(in);
  const Tensor rstd = Tensor::empty({r.rows}, arithmetic_of(x.dtype()), x.device());
  kernels(out).layer_norm(in.dtype(), r.rows, r.n, eps, in.raw(), out.raw_mutable(), rstd.raw_mutable());
  return record(layer_norm_rule, out.to(x.dtype()), {&x}, save_input(0) | save_output, eps, {&rstd, 1});
}

Var gather_rows(const Var& table, const Tensor& index) {
  require(table.rank() == 2 && is_floating(table.dtype()), "gather_rows: the table is ", table.dtype(), " of shape ",
          table.shape(), "; expected a matrix of f32 or f64");
  check_index("gather_rows", index, table.extent(0), table.device());
  Tensor out = Tensor::empty({index.extent(0), table.extent(1)}, table.dtype(), table.device());
  if (out.numel() && !out.is_meta())
    kernels(out).gather_rows(out.dtype(), out.extent(0), out.extent(1), table.extent(0),
                             static_cast<const std::int32_t*>(index.raw()), table.value().raw(), out.raw_mutable());
  return record(gather_rule, std::move(out), {&table}, save_nothing, table.extent(0), {&index, 1});
}

Var scatter_rows(const Var& rows, const Tensor& index, std::int64_t n) {
  require(rows.rank() == 2 && is_floating(rows.dtype()) && index.rank() == 1 && index.extent(0) == rows.extent(0),
          "scatter_rows: the rows are ", rows.dtype(), " of shape ", rows.shape(), " and the index has shape ", index.shape());
  require(n >= 0, "scatter_rows: ", n, " rows were asked for");
  check_index("scatter_rows", index, n, rows.device());
  // Rows that meet are added in f32 on every device: no kernel adds in bf16.
  const Tensor in = rows.dtype() == DType::bf16 ? rows.value().to(DType::f32) : rows.value();
  Tensor out = Tensor::zeros({n, rows.extent(1)}, in.dtype(), in.device());
  if (rows.numel() && !out.is_meta())
    kernels(out).scatter_add_rows(out.dtype(), rows.extent(0), rows.extent(1), n,
                                  static_cast<const std::int32_t*>(index.raw()), in.raw(), out.raw_mutable());
  return record(scatter_rule, out.to(rows.dtype()), {&rows}, save_nothing, std::int64_t{0}, {&index, 1});
}

}  // namespace costate
