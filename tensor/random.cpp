#include <costate/tensor/random.h>

#include <costate/tensor/box_muller.h>

#include <numeric>
#include <utility>

namespace costate {

double Philox::normal(std::uint64_t sample, std::uint32_t step, std::uint32_t element) const {
  const auto w = words(sample, step, element / 4);
  float value[2];
  if (element % 4 < 2) box_muller(w[0], w[1], value);
  else box_muller(w[2], w[3], value);
  return value[element % 2];
}

namespace {
// Samples of `out`, whose counters must not overflow.
std::int64_t samples_of(const Tensor& out, Stream stream, std::uint64_t first_sample) {
  require(out.rank() >= 1, "random: shape ", out.shape(), " has no axis that counts samples");
  require(computes(out.dtype()), "random: the tensor is ", out.dtype(), "; expected f32 or f64");
  const std::int64_t samples = out.extent(0), per_sample = samples ? out.numel() / samples : 0;
  require(per_sample < (std::int64_t{1} << 34), "random: ", per_sample, " elements a sample exceed the counter");
  const auto count = static_cast<std::uint64_t>(samples);
  require(first_sample <= (std::uint64_t{1} << 48) - count, "random: samples ", first_sample, " to ", first_sample + count,
          " exceed the counter, which holds 2^48");
  require(static_cast<std::uint32_t>(stream) < (1u << 16), "random: stream ", static_cast<std::uint32_t>(stream),
          " exceeds the counter, which holds 2^16");
  return samples;
}

void generate(bool normal, const Tensor& out, std::uint64_t seed, Stream stream, std::uint64_t first_sample,
              std::uint32_t step) {
  const std::int64_t samples = samples_of(out, stream, first_sample);
  kernels(out).random(out.dtype(), normal, seed, static_cast<std::uint32_t>(stream), first_sample, step, samples,
                      samples ? out.numel() / samples : 0, out.raw_mutable());
  out.storage()->written();
}
}  // namespace

void random_normal(const Tensor& out, std::uint64_t seed, Stream stream, std::uint64_t first_sample, std::uint32_t step) {
  generate(true, out, seed, stream, first_sample, step);
}
void random_uniform(const Tensor& out, std::uint64_t seed, Stream stream, std::uint64_t first_sample, std::uint32_t step) {
  generate(false, out, seed, stream, first_sample, step);
}

void random_normal_step(const Tensor& out, const double (&c)[3], const Tensor& x, const Tensor& y, std::uint64_t seed,
                        Stream stream, std::uint64_t first_sample, std::uint32_t step) {
  const auto fits = [&](const Tensor& t) {
    return t.shape() == out.shape() && t.dtype() == out.dtype() && t.device() == out.device();
  };
  require(fits(x) && fits(y), "random_normal_step: operands of shape ", x.shape(), " and ", y.shape(), ", ", x.dtype(), " and ",
          y.dtype(), ", on ", x.device(), " and ", y.device(), " for a result of shape ", out.shape(), " of ", out.dtype(),
          " on ", out.device());
  const std::int64_t samples = samples_of(out, stream, first_sample);
  if (out.numel())
    kernels(out).noisy_step(out.dtype(), c, seed, static_cast<std::uint32_t>(stream), first_sample, step, samples,
                            out.numel() / samples, x.raw(), y.raw(), out.raw_mutable());
  out.storage()->written();
}

std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) {
  require(n >= 0 && n <= INT32_MAX, "permutation: of ", n, " items; expected 0 to 2^31 - 1");
  std::vector<std::int64_t> p(static_cast<std::size_t>(n));
  std::iota(p.begin(), p.end(), std::int64_t{0});
  const Philox philox{seed, Stream::shuffle};
  for (std::int64_t i = n - 1; i > 0; --i)
    std::swap(p[i], p[philox.below(static_cast<std::uint32_t>(i + 1), epoch, 0, static_cast<std::uint32_t>(i))]);
  return p;
}

}  // namespace costate
