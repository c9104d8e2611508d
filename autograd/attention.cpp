// Attention: the sweep needs q, k, v, the result and one number a row; the matrix of scores is never stored.
#include <costate/autograd/ops.h>

namespace costate {
namespace {

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
  const Tensor &q = b.input_value(0), &k = b.input_value(1), &v = b.input_value(2);
  const Tensor out = b.output().value();
  Tensor d[3];
  for (int i = 0; i < 3; ++i)
    if (b.needs(i)) d[i] = Tensor::empty_like(b.input_value(i));
  if (out.numel())
    kernels(q).attention_vjp(call_of(q, k, v, b.attributes<std::int64_t>()), out.raw(), b.extra(0).raw(),
                             b.cotangent().value().raw(), d[0].raw_mutable(), d[1].raw_mutable(), d[2].raw_mutable());
  else
    for (const Tensor& t : d)
      if (t.defined()) t.fill(0);
  for (int i = 0; i < 3; ++i)
    if (d[i].defined()) b.add(i, Var(std::move(d[i])));
}
constexpr Rule attention_rule{"attention", attention_vjp};

}  // namespace

Var attention(const Var& q, const Var& k, const Var& v, int heads) {
  require(q.defined() && k.defined() && v.defined(), "attention: an operand is undefined");
  require(q.rank() == 3 && k.rank() == 3 && k.shape() == v.shape() && q.extent(0) == k.extent(0) && q.extent(2) == k.extent(2),
          "attention: q, k and v have shapes ", q.shape(), ", ", k.shape(), " and ", v.shape(),
          "; expected (n, queries, d), (n, keys, d) and (n, keys, d)");
  require(q.dtype() == k.dtype() && q.dtype() == v.dtype() && q.dtype() != DType::i32 && q.device() == k.device() &&
              q.device() == v.device(),
          "attention: the operands are ", q.dtype(), " on the ", q.device(), ", ", k.dtype(), " on the ", k.device(), " and ",
          v.dtype(), " on the ", v.device());
  require(heads >= 1 && q.extent(2) >= 1 && q.extent(2) % heads == 0, "attention: rows of ", q.extent(2),
          " elements cannot be cut into ", heads, " heads of equal width");
  require(k.extent(1) >= 1, "attention: there are no keys in k of shape ", k.shape());
  const bool tracked = q.tracked() || k.tracked() || v.tracked();
  Tensor out = Tensor::empty_like(q.value()), log_sum_exp;
  if (tracked) log_sum_exp = Tensor::empty({q.extent(0), heads, q.extent(1)}, q.dtype(), q.device());
  if (out.numel())
    kernels(out).attention(call_of(q.value(), k.value(), v.value(), heads), out.raw_mutable(), log_sum_exp.raw_mutable());
  if (!tracked) return Var(std::move(out));
  return record(attention_rule, std::move(out), {&q, &k, &v}, save_input(0) | save_input(1) | save_input(2) | save_output,
                std::int64_t{heads}, {&log_sum_exp, 1});
}

}  // namespace costate
