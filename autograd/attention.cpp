// Attention: the sweep needs q, k, v, the result and one number a row; the matrix of scores is never stored.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/flops.h>

#include <array>
#include <utility>

namespace costate {
namespace {

using detail::widened;

// Of one product of scores with values, or of values with values.
std::int64_t product_flops(const AttentionCall& c) { return 2 * c.n * c.heads * c.queries * c.keys * c.width; }

void run(const AttentionCall& call, const Tensor& out, const Tensor& log_sum_exp) {
  kernels(out).attention(call, out.raw_mutable(), log_sum_exp.raw_mutable());
  detail::count_flops(2 * product_flops(call));
}
// Gradients of those of q, k, v that are wanted. The scores are computed again; dq and dk need their gradient besides.
void run_vjp(const Backward& b, const AttentionCall& call, std::array<bool, 3> wanted, std::array<void*, 3> d) {
  const Tensor out = widened(b.output().value()), cotangent = widened(b.cotangent().value());
  kernels(out).attention_vjp(call, out.raw(), b.extra(0).raw(), cotangent.raw(), d[0], d[1], d[2]);
  const auto [q, k, v] = wanted;
  detail::count_flops((1 + v + (q || k) + q + k) * product_flops(call));
}

AttentionCall call_of(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t heads) {
  AttentionCall call;
  call.dtype = q.dtype();
  call.n = q.extent(0), call.heads = heads, call.queries = q.extent(1), call.keys = k.extent(1);
  call.width = q.extent(2) / heads;
  call.row_q = call.row_k = call.row_v = q.extent(2);
  call.q = q.raw(), call.k = k.raw(), call.v = v.raw();
  return call;
}

void attention_vjp(Backward& b) {
  require(!b.recorded(),
          "attention: second derivatives are not offered; compose it from matmul and softmax to differentiate twice");
  const Tensor in[3] = {widened(b.input_value(0)), widened(b.input_value(1)), widened(b.input_value(2))};
  const Tensor &q = in[0], &k = in[1], &v = in[2];
  Tensor d[3];
  for (int i = 0; i < 3; ++i)
    if (b.needs(i)) d[i] = Tensor::empty_like(in[i]);
  if (q.numel())
    run_vjp(b, call_of(q, k, v, b.attributes<std::int64_t>()), {b.needs(0), b.needs(1), b.needs(2)},
            {d[0].raw_mutable(), d[1].raw_mutable(), d[2].raw_mutable()});
  else
    for (const Tensor& t : d)
      if (t.defined()) t.fill(0);
  for (int i = 0; i < 3; ++i)
    if (d[i].defined()) b.add(i, cast(std::exchange(d[i], Tensor()), b.cotangent().dtype()));
}
constexpr Rule attention_rule{"attention", attention_vjp};

// q, k and v as thirds of one tensor: the kernel walks over rows that are further apart, and nothing is cut or joined.
const void* third(const Tensor& t, int i) {
  const auto* base = static_cast<const std::byte*>(t.raw());
  return base ? base + i * (t.extent(2) / 3) * size_of(t.dtype()) : nullptr;
}
AttentionCall packed_call(const Tensor& qkv, std::int64_t heads) {
  AttentionCall call;
  call.dtype = qkv.dtype();
  call.n = qkv.extent(0), call.heads = heads, call.queries = call.keys = qkv.extent(1);
  call.width = qkv.extent(2) / 3 / heads;
  call.row_q = call.row_k = call.row_v = qkv.extent(2);
  call.q = third(qkv, 0), call.k = third(qkv, 1), call.v = third(qkv, 2);
  return call;
}

void packed_attention_vjp(Backward& b) {
  require(!b.recorded(),
          "attention: second derivatives are not offered; compose it from matmul and softmax to differentiate twice");
  const Tensor qkv = widened(b.input_value(0));
  Tensor d = Tensor::empty_like(qkv);
  const auto out = [&](int i) { return const_cast<void*>(third(d, i)); };
  run_vjp(b, packed_call(qkv, b.attributes<std::int64_t>()), {true, true, true}, {out(0), out(1), out(2)});
  b.add(0, cast(std::exchange(d, Tensor()), b.cotangent().dtype()));
}
constexpr Rule packed_attention_rule{"attention", packed_attention_vjp};

}  // namespace

Var attention(const Var& qkv, int heads) {
  require(qkv.defined() && qkv.rank() == 3 && is_floating(qkv.dtype()), "attention: q, k and v together are ",
          qkv.defined() ? Piece(qkv.dtype()) : Piece("undefined"), " of shape ", qkv.shape(),
          "; expected f32 or f64 of shape (n, tokens, 3 d)");
  require(heads >= 1 && qkv.extent(2) >= 1 && qkv.extent(2) % (3 * std::int64_t{heads}) == 0, "attention: rows of ",
          qkv.extent(2), " elements cannot be cut into q, k and v of ", heads, " heads of equal width");
  const std::int64_t n = qkv.extent(0), tokens = qkv.extent(1), d = qkv.extent(2) / 3;
  require(n >= 1 && tokens >= 1, "attention: there are no tokens in shape ", qkv.shape());
  const Tensor in = widened(qkv.value());
  Tensor out = Tensor::empty({n, tokens, d}, in.dtype(), in.device()), log_sum_exp;
  if (qkv.tracked()) log_sum_exp = Tensor::empty({n, heads, tokens}, arithmetic_of(qkv.dtype()), qkv.device());
  run(packed_call(in, heads), out, log_sum_exp);
  out = std::exchange(out, Tensor()).to(qkv.dtype());
  if (!qkv.tracked()) return Var(std::move(out));
  return record(packed_attention_rule, std::move(out), {&qkv}, save_input(0) | save_output, std::int64_t{heads},
                {&log_sum_exp, 1});
}

Var attention(const Var& q, const Var& k, const Var& v, int heads) {
  require(q.defined() && k.defined() && v.defined(), "attention: an operand is undefined");
  require(q.rank() == 3 && k.rank() == 3 && k.shape() == v.shape() && q.extent(0) == k.extent(0) && q.extent(2) == k.extent(2),
          "attention: q, k and v have shapes ", q.shape(), ", ", k.shape(), " and ", v.shape(),
          "; expected (n, queries, d), (n, keys, d) and (n, keys, d)");
  require(q.dtype() == k.dtype() && q.dtype() == v.dtype() && is_floating(q.dtype()) && q.device() == k.device() &&
              q.device() == v.device(),
          "attention: the operands are ", q.dtype(), " on the ", q.device(), ", ", k.dtype(), " on the ", k.device(), " and ",
          v.dtype(), " on the ", v.device());
  require(heads >= 1 && q.extent(2) >= 1 && q.extent(2) % heads == 0, "attention: rows of ", q.extent(2),
          " elements cannot be cut into ", heads, " heads of equal width");
  require(k.extent(1) >= 1, "attention: there are no keys in k of shape ", k.shape());
  const bool tracked = q.tracked() || k.tracked() || v.tracked();
  const Tensor in[3] = {widened(q.value()), widened(k.value()), widened(v.value())};
  Tensor out = Tensor::empty_like(in[0]), log_sum_exp;
  if (tracked) log_sum_exp = Tensor::empty({q.extent(0), heads, q.extent(1)}, arithmetic_of(q.dtype()), q.device());
  if (out.numel())
    run(call_of(in[0], in[1], in[2], heads), out, log_sum_exp);
  out = std::exchange(out, Tensor()).to(q.dtype());
  if (!tracked) return Var(std::move(out));
  return record(attention_rule, std::move(out), {&q, &k, &v}, save_input(0) | save_input(1) | save_input(2) | save_output,
                std::int64_t{heads}, {&log_sum_exp, 1});
}

}  // namespace costate
