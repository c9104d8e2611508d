// Dropout: the mask is a pure function of its counter, made again in the sweep and never stored.
#include <costate/autograd/ops.h>
#include <costate/autograd/widen.h>
#include <costate/tensor/random.h>

#include <cmath>

namespace costate {
namespace {

struct Attributes {
  double probability;
  std::uint64_t seed, first_sample;
  std::uint32_t step;
};

void dropout_vjp(Backward& b) {
  const auto& a = b.attributes<Attributes>();
  b.add(0, dropout(b.cotangent(), a.probability, a.seed, a.first_sample, a.step));
}
constexpr Rule dropout_rule{"dropout", dropout_vjp};

}  // namespace

Var dropout(const Var& x, double probability, std::uint64_t seed, std::uint64_t first_sample, std::uint32_t step) {
  require(x.defined() && x.rank() >= 1 && is_floating(x.dtype()), "dropout: the operand is ",
          x.defined() ? Piece(x.dtype()) : Piece("undefined"), " of shape ", x.shape(),
          "; expected f32 or f64 with an axis that counts samples");
  require(probability >= 0 && probability < 1, "dropout: the probability ", probability, " is not in [0, 1)");
  const std::int64_t samples = x.extent(0), per_sample = samples ? x.numel() / samples : 0;
  require(per_sample < (std::int64_t{1} << 34), "dropout: ", per_sample, " elements a sample exceed the counter");
  require(first_sample <= (std::uint64_t{1} << 48) - static_cast<std::uint64_t>(samples), "dropout: samples ", first_sample, " to ",
          first_sample + static_cast<std::uint64_t>(samples), " exceed the counter, which holds 2^48");
  if (probability == 0) return x;
  const double words = std::floor(probability * 0x1p32 + 0.5);
  const auto threshold = words < 0x1p32 ? static_cast<std::uint32_t>(words) : UINT32_MAX;
  const Tensor in = detail::widened(x.value());
  Tensor out = Tensor::empty_like(in);
  if (out.numel())
    kernels(out).dropout(in.dtype(), probability, threshold, seed, static_cast<std::uint32_t>(Stream::dropout), first_sample, step,
                         samples, per_sample, in.raw(), out.raw_mutable());
  return record(dropout_rule, out.to(x.dtype()), {&x}, save_nothing, Attributes{probability, seed, first_sample, step});
}

}  // namespace costate
