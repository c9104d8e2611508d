// Traces from products, and log-likelihoods along the probability flow of Gaussian data, whose field is affine in x.
#include <costate/autograd/ops.h>
#include <costate/sde/likelihood.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

namespace costate::sde {
namespace {

using Values = std::vector<double>;

// Mean and standard error of the mean.
struct Sample {
  double mean = 0, error = 0;
  explicit Sample(const Values& v) {
    const double n = static_cast<double>(v.size());
    for (double x : v) mean += x / n;
    for (double x : v) error += (x - mean) * (x - mean);
    error = std::sqrt(error / (n - 1) / n);
  }
};

Tensor random(const Shape& shape, std::uint64_t seed, DType dtype = DType::f64) {
  const Tensor x = Tensor::empty(shape, dtype);
  random_normal(x, seed, Stream::user, 0, 0);
  return x;
}

// a -> J^T a of the same J for every row, as a product of rows: a J.
std::function<Tensor(const Tensor&)> product_with(const Tensor& jacobian) {
  return [jacobian](const Tensor& a) { return matmul(Var(a), Var(jacobian)).value(); };
}
double trace_of(const Tensor& j) {
  double sum = 0;
  for (std::int64_t i = 0; i < j.extent(0); ++i) sum += j.values<double>()[i * (j.extent(0) + 1)];
  return sum;
}

TEST(Trace, ExactReadsTheDiagonal) {
  const Tensor j = random({7, 7}, 1);
  for (double v : trace(product_with(j), random({3, 7}, 2), {}, {})) EXPECT_NEAR(v, trace_of(j), 1e-12);
}

// Unbiased within three standard errors, and with the variances of the header: relative error of a sample variance from
// n = 20000 values is about sqrt(2/n) times a kurtosis factor below 3.
TEST(Trace, HutchinsonIsUnbiasedWithTheKnownVariance) {
  const int d = 6, n = 20000;
  const Tensor j = random({d, d}, 3);
  double square = 0, diagonal = 0;
  for (int a = 0; a < d; ++a)
    for (int b = 0; b < d; ++b) {
      const double s = (j.values<double>()[a * d + b] + j.values<double>()[b * d + a]) / 2;
      square += s * s, diagonal += a == b ? s * s : 0;
    }
  for (const Probe probe : {Probe::rademacher, Probe::gaussian})
    for (const int m : {1, 4}) {
      const Sample s(trace(product_with(j), Tensor::empty({n, d}, DType::f64), {TraceMethod::hutchinson, m, probe}, {5, 0}));
      EXPECT_NEAR(s.mean, trace_of(j), 3 * s.error);
      const double variance = 2 * (probe == Probe::gaussian ? square : square - diagonal) / m;
      EXPECT_NEAR(s.error * s.error * n, variance, 3 * 3 * std::sqrt(2.0 / n) * variance);
    }
}

// Exact when the range of Q is that of J^T: for any J with s >= d, and for J of rank r with s >= r. Also for J = 0 and for
// more columns than the rank, where columns of Q vanish or are rounding.
TEST(Trace, HutchPlusPlusIsExactWhereItsProbesSpanTheRange) {
  const int d = 8;
  const Tensor like = random({5, d}, 4);
  const Tensor full = random({d, d}, 5), low = matmul(Var(random({d, 2}, 6)), Var(random({2, d}, 7))).value();
  const auto estimate = [&](const Tensor& j, int m) {
    return trace(product_with(j), like, {TraceMethod::hutch_pp, m, Probe::gaussian}, {8, 0});
  };
  for (double v : estimate(full, 3 * d)) EXPECT_NEAR(v, trace_of(full), 1e-11);
  for (double v : estimate(full, 100)) EXPECT_NEAR(v, trace_of(full), 1e-11);
  for (const int m : {6, 9, 15, 24})
    for (double v : estimate(low, m)) EXPECT_NEAR(v, trace_of(low), 1e-10) << m;
  for (double v : estimate(Tensor::zeros({d, d}, DType::f64), 9)) EXPECT_EQ(v, 0);
  EXPECT_GT(std::abs(estimate(full, 6)[0] - trace_of(full)), 1e-6);  // no range, no exactness
}

// On a Jacobian near to rank 2 the same number of products: unbiased both, and the variance of the part outside the range is
// that of its Frobenius norm, here some 1e-4 of the whole.
TEST(Trace, HutchPlusPlusHasLessVarianceOnALowRank) {
  const int d = 10, n = 4000;
  const Tensor low = matmul(Var(random({d, 2}, 6)), Var(random({2, d}, 7))).value();
  const Tensor j = axpby(1, Var(low), 0.01, Var(random({d, d}, 9))).value();
  const Tensor like = Tensor::empty({n, d}, DType::f64);
  const Sample plain(trace(product_with(j), like, {TraceMethod::hutchinson, 12, Probe::gaussian}, {1, 0}));
  const Sample better(trace(product_with(j), like, {TraceMethod::hutch_pp, 12, Probe::gaussian}, {1, 0}));
  EXPECT_NEAR(plain.mean, trace_of(j), 3 * plain.error);
  EXPECT_NEAR(better.mean, trace_of(j), 3 * better.error);
  EXPECT_LT(better.error, 0.03 * plain.error);
}

TEST(Trace, Refusals) {
  const Tensor j = random({3, 3}, 1), like = random({2, 3}, 1);
  EXPECT_THROW(trace(product_with(j), like, {TraceMethod::hutchinson, 0}, {}), Error);
  EXPECT_THROW(trace(product_with(j), like, {TraceMethod::hutch_pp, 2}, {}), Error);
  EXPECT_THROW(trace([](const Tensor& a) { return a.slice(0, 1); }, like, {}, {}), Error);
}

// ---------------------------------------------------------------------------------------------- the flow

// The exact field for data of independent coordinates N(mean, variance), in any parametrisation.
struct GaussianData {
  Schedule schedule;
  double mean, variance;

  ProbabilityFlow flow(Parametrisation prediction = Parametrisation::velocity) const {
    const GaussianData own = *this;
    return {[own, prediction](const Var& x, const Var& t, const Tensor&) {
              const double time = t.dtype() == DType::f64 ? t.value().values<double>()[0] : t.value().values<float>()[0];
              const AffineModel m = gaussian_prediction(prediction, own.schedule.at(time), own.mean, own.variance);
              return affine(x, m.slope, m.intercept);
            },
            schedule, prediction};
  }
  // Of x at a time: N(alpha mean, alpha^2 variance + beta^2).
  double log_density(const double* x, int dim, double t = 1) const {
    const PathPoint p = schedule.at(t);
    const double v = p.alpha * p.alpha * variance + p.beta * p.beta;
    double sum = 0;
    for (int j = 0; j < dim; ++j)
      sum -= 0.5 * std::pow(x[j] - p.alpha * mean, 2) / v + 0.5 * std::log(2 * std::numbers::pi * v);
    return sum;
  }
};

const GaussianData kLinear{{PathFamily::linear}, 0.7, 0.25};

double largest_error(const GaussianData& data, const Likelihood& l, const Tensor& x1) {
  const auto x = x1.to_doubles();
  const int dim = static_cast<int>(x1.numel() / x1.extent(0));
  double worst = 0;
  for (std::size_t i = 0; i < l.log_likelihood.size(); ++i)
    worst = std::max(worst, std::abs(l.log_likelihood[i] - data.log_density(x.data() + i * dim, dim)));
  return worst;
}

// The map of each coordinate is x_1 = mean + sqrt(variance) x_0.
TEST(Likelihood, GaussianDataOnTheLinearPath) {
  const Tensor x1 = random({70, 3}, 1);
  const Likelihood l = log_likelihood(kLinear.flow(), x1);
  EXPECT_LT(largest_error(kLinear, l, x1), 1e-5);
  EXPECT_EQ(l.evaluations, 200);
  EXPECT_EQ(l.pullbacks, 600);
  for (std::size_t i = 0; i < 210; ++i)
    EXPECT_NEAR(l.x.to_doubles()[i], (x1.to_doubles()[i] - 0.7) / 0.5, 1e-5);
  // And back: the same number from the other end, up to the error of the method.
  const Likelihood back = sample_with_likelihood(kLinear.flow(), l.x);
  for (std::size_t i = 0; i < 70; ++i) EXPECT_NEAR(back.log_likelihood[i], l.log_likelihood[i], 1e-5);
  for (std::size_t i = 0; i < 210; ++i) EXPECT_NEAR(back.x.to_doubles()[i], x1.to_doubles()[i], 1e-5);
}

TEST(Likelihood, SinglePrecisionIsWithinItsRounding) {
  const Tensor x1 = random({5, 3}, 1, DType::f32);
  EXPECT_LT(largest_error(kLinear, log_likelihood(kLinear.flow(), x1), x1), 2e-5);
}

// Errors at K and 2 K steps differ by 2^order; the slope is not yet that of the limit, so within 0.25.
TEST(Likelihood, ErrorHasTheOrderOfTheMethod) {
  const Tensor x1 = random({4, 2}, 3);
  const struct {
    FlowMethod method;
    double order;
    int steps;
  } cases[] = {{FlowMethod::euler, 1, 160}, {FlowMethod::heun, 2, 80}, {FlowMethod::rk4, 4, 40}};
  for (const auto& c : cases)
    for (const bool towards_data : {false, true}) {
      const auto error = [&](int steps) {
        const LikelihoodOptions o{uniform_grid(steps), c.method};
        if (!towards_data) return largest_error(kLinear, log_likelihood(kLinear.flow(), x1, {}, o), x1);
        // Towards data the end itself has an error: compare with the density at the exact end, mean + sqrt(variance) x_0.
        const Likelihood l = sample_with_likelihood(kLinear.flow(), x1, {}, o);
        return largest_error(kLinear, l, affine(Var(x1), 0.5, 0.7).value());
      };
      const double slope = std::log2(error(c.steps) / error(2 * c.steps));
      EXPECT_NEAR(slope, c.order, 0.25) << name(c.method) << (towards_data ? " towards data" : " towards noise");
    }
}

// Every parametrisation is one velocity, so that the numbers agree to rounding on a grid inside [0, 1] (1/beta^2 = 1e4).
TEST(Likelihood, DoesNotDependOnTheParametrisation) {
  for (const Schedule& s : {Schedule{PathFamily::linear}, Schedule{PathFamily::vp_linear}, Schedule{PathFamily::vp_cosine}}) {
    const GaussianData data{s, 0.7, 0.25};
    const Tensor x1 = random({3, 2}, 1);
    LikelihoodOptions o;
    o.t.clear();
    for (int k = 0; k <= 60; ++k) o.t.push_back(0.01 + 0.98 * k / 60);
    const Likelihood reference = log_likelihood(data.flow(), x1, {}, o);
    for (const Parametrisation p : {Parametrisation::epsilon, Parametrisation::x1, Parametrisation::score,
                                    Parametrisation::v_prediction}) {
      const Likelihood l = log_likelihood(data.flow(p), x1, {}, o);
      for (std::size_t i = 0; i < 3; ++i)
        EXPECT_NEAR(l.log_likelihood[i], reference.log_likelihood[i], 1e-8) << name(p) << " " << s.description();
    }
  }
}

// vp_linear: alpha(0) = exp(-5.03) makes the law at t = 0 differ from N(0, I) by 2e-3 in its mean, and beta' is infinite at
// t = 1: the grid is graded towards it.
TEST(Likelihood, VariancePreservingPathOnAGradedGrid) {
  const GaussianData data{{PathFamily::vp_linear}, 0.3, 0.5};
  LikelihoodOptions o;
  o.t.assign(201, 0.0);
  for (int k = 0; k <= 200; ++k) o.t[k] = 1 - std::pow(1 - k / 200.0, 2);
  const Tensor x1 = random({6, 2}, 1);
  o.t.back() = 1 - 1e-5;
  const Likelihood l = log_likelihood(data.flow(), x1, {}, o);
  const auto x = x1.to_doubles();
  // Exactly: the affine flow from N(0, 1) at t = 0 maps standardised coordinates to standardised coordinates.
  const PathPoint start = data.schedule.at(0), end = data.schedule.at(o.t.back());
  for (std::size_t i = 0; i < 6; ++i) {
    double expected = 0;
    const double s0 = std::sqrt(start.alpha * start.alpha * 0.5 + start.beta * start.beta);
    const double s1 = std::sqrt(end.alpha * end.alpha * 0.5 + end.beta * end.beta);
    for (int j = 0; j < 2; ++j) {
      const double x0 = start.alpha * 0.3 + s0 / s1 * (x[2 * i + j] - end.alpha * 0.3);
      expected -= 0.5 * x0 * x0 + 0.5 * std::log(2 * std::numbers::pi) - std::log(s0 / s1);
    }
    EXPECT_NEAR(l.log_likelihood[i], expected, 1e-4);
  }
}

// On a field whose Jacobian is not diagonal: an estimate a row, whose mean over 4000 equal rows is the exact number.
TEST(Likelihood, ProbesAreUnbiasedFixedOrFresh) {
  const int d = 4, n = 4000;
  const Tensor w = random({d, d}, 11);
  const ProbabilityFlow flow{[w](const Var& x, const Var&, const Tensor&) { return tanh(matmul(x, Var(w))); }, {}};
  const Tensor one = random({1, d}, 12);
  const Tensor many = broadcast_to(Var(one), Shape{n, d}).value();
  LikelihoodOptions o;
  o.t = uniform_grid(4);
  const double exact = log_likelihood(flow, one, {}, o).log_likelihood[0];
  o.key = {3, 0};
  double error[2];
  for (const bool fresh : {false, true})
    for (const TraceOptions& t : {TraceOptions{TraceMethod::hutchinson, 2, Probe::rademacher},
                                  TraceOptions{TraceMethod::hutch_pp, 3, Probe::gaussian}}) {
      o.trace = t, o.fresh_probes = fresh;
      const Likelihood l = log_likelihood(flow, many, {}, o);
      const Sample s(l.log_likelihood);
      EXPECT_NEAR(s.mean, exact, 3 * s.error) << name(t.method) << fresh;
      EXPECT_EQ(l.pullbacks, 16 * t.probes);
      if (t.method == TraceMethod::hutchinson) error[fresh] = s.error;
    }
  EXPECT_LT(error[1], 0.7 * error[0]);  // sixteen independent probes instead of one
}

TEST(Likelihood, DoesNotDependOnThreadsOrOnTheSplitOfTheBatch) {
  const Tensor x1 = random({150, 3}, 1, DType::f32);
  LikelihoodOptions o;
  o.t = uniform_grid(5), o.trace = {TraceMethod::hutchinson, 2}, o.fresh_probes = true, o.key = {9, 1000};
  const Likelihood one = log_likelihood(kLinear.flow(), x1, {}, o);
  set_threads(2);
  const Likelihood two = log_likelihood(kLinear.flow(), x1, {}, o);
  set_threads(1);
  EXPECT_EQ(one.log_likelihood, two.log_likelihood);
  o.key = {9, 1100};
  const Likelihood tail = log_likelihood(kLinear.flow(), x1.slice(100, 50), {}, o);
  for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(tail.log_likelihood[i], one.log_likelihood[100 + i]);
}

TEST(Likelihood, SingularEndsAreRefusedInWords) {
  const Tensor x1 = random({2, 2}, 1);
  const auto refusal = [&](Parametrisation p, FlowMethod method, bool towards_data) {
    LikelihoodOptions o;
    o.t = uniform_grid(4), o.method = method;
    try {
      towards_data ? sample_with_likelihood(kLinear.flow(p), x1, {}, o) : log_likelihood(kLinear.flow(p), x1, {}, o);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal(Parametrisation::epsilon, FlowMethod::rk4, false).find("t = 0"), std::string::npos);
  EXPECT_NE(refusal(Parametrisation::x1, FlowMethod::heun, true).find("t = 1"), std::string::npos);
  // Euler's method does not ask for the time that it moves to last.
  EXPECT_EQ(refusal(Parametrisation::epsilon, FlowMethod::euler, false), "");
  EXPECT_EQ(refusal(Parametrisation::x1, FlowMethod::euler, true), "");
  EXPECT_NE(refusal(Parametrisation::x1, FlowMethod::euler, false), "");
  LikelihoodOptions o;
  for (const Values& t : {Values{}, Values{0}, Values{0, 0.5, 0.5, 1}, Values{0, 1.5}, Values{-0.1, 1}}) {
    o.t = t;
    EXPECT_THROW(log_likelihood(kLinear.flow(), x1, {}, o), Error);
  }
  EXPECT_THROW(log_likelihood(kLinear.flow(), Tensor::zeros({3}, DType::f64)), Error);
  EXPECT_THROW(log_likelihood(kLinear.flow(), Tensor::zeros({3, 2}, DType::i32)), Error);
  EXPECT_THROW(log_likelihood(kLinear.flow(), x1, Tensor::zeros({3}, DType::i32)), Error);
}

TEST(Likelihood, BitsPerDimension) {
  // A uniform density on [-1, 1]^d gives every cell of side 2/256 the probability 256^-d: 8 bits.
  EXPECT_NEAR(bits_per_dim(-5 * std::log(2.0), 5, 2.0 / 256), 8, 1e-14);
  EXPECT_NEAR(bits_per_dim(-3 * std::numbers::ln2, 3), 1, 1e-15);
  EXPECT_THROW(bits_per_dim(0, 0), Error);
  EXPECT_THROW(bits_per_dim(0, 1, 0), Error);
}

}  // namespace
}  // namespace costate::sde
