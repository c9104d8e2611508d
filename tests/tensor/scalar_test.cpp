// Scalar functions against long double, at special values, and their duals against differences and known
// derivatives.
#include <costate/tensor/scalar.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace costate {
namespace {

using scalar::Dual;
constexpr float inf = std::numeric_limits<float>::infinity();
const long double pi = 3.14159265358979323846264338327950288L;

// Values in [low, high]: evenly spaced ones, and ones that are even in the exponent.
std::vector<float> sweep(float low, float high) {
  std::vector<float> x;
  for (int i = 0; i <= 40000; ++i)
    x.push_back(static_cast<float>(low + (static_cast<double>(high) - low) * i / 40000));
  for (std::uint32_t bits = 0; bits < 0x7f800000u; bits += 50021) {
    const float size = __builtin_bit_cast(float, bits);
    if (size <= high && size >= low) x.push_back(size);
    if (-size <= high && -size >= low) x.push_back(-size);
  }
  return x;
}

// The largest error in units of the last place of the result, over arguments whose result is a normal number.
template <class F, class G>
double ulps(float low, float high, F f, G reference) {
  double worst = 0;
  for (float x : sweep(low, high)) {
    const long double r = reference(static_cast<long double>(x));
    if (std::abs(r) < 1.2e-38L || std::abs(r) > 3.4e38L) continue;
    worst = std::max(worst, static_cast<double>(std::abs(f(x) - r) / std::ldexp(1.0L, std::ilogb(r) - 23)));
  }
  return worst;
}
// The largest absolute error, over max(1, |x|).
template <class F, class G>
double absolute(float low, float high, F f, G reference) {
  double worst = 0;
  for (float x : sweep(low, high)) {
    const long double e = std::abs(f(x) - reference(static_cast<long double>(x)));
    worst = std::max(worst, static_cast<double>(e / std::max(1.0f, std::abs(x))));
  }
  return worst;
}

#define FLOAT_FUNCTION(name) [](float x) { return scalar::name(x); }
long double logistic(long double x) { return 1 / (1 + std::exp(-x)); }
long double cdf(long double x) { return 0.5L * std::erfc(-x / std::sqrt(2.0L)); }
long double gelu_tanh(long double x) {
  return x * logistic(2 * std::sqrt(2 / pi) * (x + 0.044715L * x * x * x));
}

// The bounds are those that the header states.
TEST(Scalar, FloatFunctionsAreWithinTheirStatedErrors) {
  const auto expl = [](long double x) { return std::exp(x); };
  const auto logl = [](long double x) { return std::log(x); };
  const auto tanhl = [](long double x) { return std::tanh(x); };
  const auto erfl = [](long double x) { return std::erf(x); };
  const auto sinl = [](long double x) { return std::sin(x); };
  const auto cosl = [](long double x) { return std::cos(x); };
  const auto softplusl = [](long double x) { return std::log1p(std::exp(x)); };
  EXPECT_LT(ulps(-110, 95, FLOAT_FUNCTION(exp), expl), 1.1);
  EXPECT_LT(ulps(1e-45f, 3.4e38f, FLOAT_FUNCTION(log), logl), 1);
  EXPECT_LT(ulps(0.5f, 2, FLOAT_FUNCTION(log), logl), 1);
  EXPECT_LT(ulps(-1, 1, FLOAT_FUNCTION(tanh), tanhl), 2.5);
  EXPECT_LT(ulps(-30, 30, FLOAT_FUNCTION(tanh), tanhl), 2.5);
  EXPECT_LT(ulps(-87, 60, FLOAT_FUNCTION(sigmoid), logistic), 2.6);
  EXPECT_LT(ulps(-87, 80, FLOAT_FUNCTION(softplus), softplusl), 2);
  EXPECT_LT(ulps(-6, 6, FLOAT_FUNCTION(erf), erfl), 2.5);
  EXPECT_LT(ulps(-100, 100, FLOAT_FUNCTION(sin), sinl), 2.1);
  EXPECT_LT(ulps(-100, 100, FLOAT_FUNCTION(cos), cosl), 2.1);
  EXPECT_LT(absolute(-1e6f, 1e6f, FLOAT_FUNCTION(sin), sinl), 1.3e-7);
  EXPECT_LT(absolute(-1e6f, 1e6f, FLOAT_FUNCTION(cos), cosl), 1.3e-7);
  EXPECT_LT(ulps(-80, 60, FLOAT_FUNCTION(silu), [](long double x) { return x * logistic(x); }), 3);
  EXPECT_LT(absolute(-100, 100, FLOAT_FUNCTION(silu), [](long double x) { return x * logistic(x); }), 3e-7);
  EXPECT_LT(absolute(-20, 20, FLOAT_FUNCTION(gelu_tanh), gelu_tanh), 3e-7);
  EXPECT_LT(absolute(-20, 20, FLOAT_FUNCTION(gelu_erf), [](long double x) { return x * cdf(x); }), 3e-7);
  EXPECT_LT(ulps(0, 3.4e38f, FLOAT_FUNCTION(sqrt), [](long double x) { return std::sqrt(x); }), 0.51);
  for (float x : sweep(-12.9f, 10)) {
    const long double r = cdf(x);
    EXPECT_NEAR(scalar::normal_cdf(x), r, r * (4e-7L + 8e-8L * x * x)) << x;
  }
  for (double p : {2.0, 0.5, -1.0, -0.5, 3.0, 1.7, -2.3, 10.0, 0.001})
    EXPECT_LT(ulps(
                  0, 3.4e38f, [p](float x) { return scalar::pow(x, p); },
                  [p](long double x) { return std::pow(x, static_cast<long double>(p)); }),
              0.51)
        << p;
}

TEST(Scalar, SpecialValues) {
  const float nan = std::nanf(""), tiny = 1e-42f;
  EXPECT_EQ(scalar::exp(0.0f), 1.0f);
  EXPECT_EQ(scalar::exp(-inf), 0.0f);
  EXPECT_EQ(scalar::exp(inf), inf);
  EXPECT_EQ(scalar::exp(89.0f), inf);
  EXPECT_LT(scalar::exp(88.7f), inf);
  EXPECT_EQ(scalar::log(0.0f), -inf);
  EXPECT_EQ(scalar::log(1.0f), 0.0f);
  EXPECT_EQ(scalar::log(inf), inf);
  EXPECT_NEAR(scalar::log(tiny), std::log(tiny), 1e-5);  // a subnormal argument: 2^-23 of 97
  EXPECT_TRUE(std::isnan(scalar::log(-1.0f)));
  EXPECT_TRUE(std::isnan(scalar::log(-inf)));
  EXPECT_EQ(scalar::tanh(inf), 1.0f);
  EXPECT_EQ(scalar::tanh(-inf), -1.0f);
  EXPECT_TRUE(std::signbit(scalar::tanh(-0.0f)));
  EXPECT_EQ(scalar::sigmoid(inf), 1.0f);
  EXPECT_EQ(scalar::sigmoid(-inf), 0.0f);
  EXPECT_EQ(scalar::sigmoid(0.0f), 0.5f);
  EXPECT_EQ(scalar::softplus(inf), inf);
  EXPECT_EQ(scalar::softplus(-inf), 0.0f);
  EXPECT_EQ(scalar::erf(inf), 1.0f);
  EXPECT_EQ(scalar::erf(-inf), -1.0f);
  EXPECT_EQ(scalar::erf(0.0f), 0.0f);
  EXPECT_EQ(scalar::normal_cdf(0.0f), 0.5f);
  EXPECT_EQ(scalar::normal_cdf(-inf), 0.0f);
  EXPECT_EQ(scalar::normal_cdf(inf), 1.0f);
  EXPECT_EQ(scalar::sin(0.0f), 0.0f);
  EXPECT_EQ(scalar::cos(0.0f), 1.0f);
  EXPECT_TRUE(std::isnan(scalar::sin(inf)));
  EXPECT_TRUE(std::isnan(scalar::cos(-inf)));
  for (float x : {1e15f, -1e20f, 3e38f}) EXPECT_LE(std::abs(scalar::sin(x)), 1.0f) << x;
  for (float x : {1e15f, -1e20f, 3e38f}) EXPECT_LE(std::abs(scalar::cos(x)), 1.0f) << x;
  EXPECT_EQ(scalar::abs(-inf), inf);
  for (float x : {inf, 1e38f}) {
    EXPECT_EQ(scalar::silu(x), x);
    EXPECT_EQ(scalar::gelu_tanh(x), x);
    EXPECT_EQ(scalar::gelu_erf(x), x);
    EXPECT_EQ(scalar::silu(-x), 0.0f);
    EXPECT_EQ(scalar::gelu_tanh(-x), 0.0f);
    EXPECT_EQ(scalar::gelu_erf(-x), 0.0f);
    using D = Dual<float>;
    EXPECT_EQ(scalar::silu(D(x, 1)).d, 1.0f);
    EXPECT_EQ(scalar::gelu_tanh(D(x, 1)).d, 1.0f);
    EXPECT_EQ(scalar::gelu_erf(D(x, 1)).d, 1.0f);
    EXPECT_EQ(scalar::silu(D(-x, 1)).d, 0.0f);
    EXPECT_EQ(scalar::gelu_tanh(D(-x, 1)).d, 0.0f);
    EXPECT_EQ(scalar::gelu_erf(D(-x, 1)).d, 0.0f);
    EXPECT_EQ(scalar::erf(D(x, 1)).d, 0.0f);
    EXPECT_EQ(scalar::tanh(D(x, 1)).d, 0.0f);
    EXPECT_EQ(scalar::softplus(D(x, 1)).d, 1.0f);
  }
  const double d = std::numeric_limits<double>::infinity();
  EXPECT_EQ(scalar::silu(-d), 0.0);
  EXPECT_EQ(scalar::gelu_erf(-d), 0.0);
  EXPECT_NEAR(scalar::gelu_tanh(-d), 0.0, 1e-300);
  EXPECT_EQ(scalar::silu(d), d);
  for (const float y : {scalar::exp(nan), scalar::log(nan), scalar::sqrt(-1.0f), scalar::tanh(nan),
                        scalar::sigmoid(nan), scalar::silu(nan), scalar::gelu_tanh(nan),
                        scalar::gelu_erf(nan), scalar::erf(nan), scalar::softplus(nan), scalar::sin(nan),
                        scalar::cos(nan), scalar::pow(nan, 2), scalar::max(nan, 1.0f), scalar::max(1.0f, nan),
                        scalar::min(nan, 1.0f), scalar::min(1.0f, nan), scalar::clamp(nan, 0, 1)})
    EXPECT_TRUE(std::isnan(y));
}

TEST(Scalar, PowersHaveTheSpecialValuesOfTheStandardLibrary) {
  for (double p : {0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -2.0, -0.5, 1.7})
    for (float x : {0.0f, -0.0f, inf, -inf, std::nanf(""), -1.0f, -2.0f, 1.0f, 1e-42f}) {
      const float got = scalar::pow(x, p), expected = static_cast<float>(std::pow(static_cast<double>(x), p));
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(got)) << x << "^" << p << " = " << got;
      } else {
        EXPECT_EQ(got, expected) << x << "^" << p;
        EXPECT_EQ(std::signbit(got), std::signbit(expected)) << x << "^" << p;
      }
    }
}

// f and f' against central differences of f and of f' in double precision: error h^2 / 6 times a third
// derivative, and 1e-16 / h; with h = 1e-5 both are below 1e-9 for the functions here.
template <class F>
void check_duals(const char* name, F f, std::vector<double> points) {
  for (double x : points) {
    const double h = 1e-5;
    const auto first = [&](double at) { return f(Dual<double>(at, 1.0)).d; };
    const auto both = f(Dual<Dual<double>>({x, 1.0}, {1.0, 0.0}));
    const double d1 = (f(x + h) - f(x - h)) / (2 * h), d2 = (first(x + h) - first(x - h)) / (2 * h);
    EXPECT_EQ(both.v.v, f(x)) << name << " at " << x;
    EXPECT_NEAR(first(x), d1, 1e-8 * std::max(1.0, std::abs(d1))) << name << "' at " << x;
    EXPECT_NEAR(both.d.v, first(x), 1e-14 * std::max(1.0, std::abs(d1))) << name << "' at " << x;
    EXPECT_NEAR(both.v.d, first(x), 1e-14 * std::max(1.0, std::abs(d1))) << name << "' at " << x;
    EXPECT_NEAR(both.d.d, d2, 1e-8 * std::max(1.0, std::abs(d2))) << name << "'' at " << x;
    // Single precision follows within its own rounding.
    const float xf = static_cast<float>(x);
    const auto single = f(Dual<Dual<float>>({xf, 1.0f}, {1.0f, 0.0f}));
    const auto twice = f(Dual<Dual<double>>({static_cast<double>(xf), 1.0}, {1.0, 0.0}));
    EXPECT_NEAR(single.d.v, twice.d.v, 3e-6 * std::max(1.0, std::abs(twice.d.v)))
        << name << "' in f32 at " << x;
    EXPECT_NEAR(single.d.d, twice.d.d, 1e-5 * std::max(1.0, std::abs(twice.d.d)))
        << name << "'' in f32 at " << x;
  }
}

TEST(Dual, DerivativesOfEveryFunction) {
  const std::vector<double> line = {-7.5, -3, -1.2, -0.4, -0.01, 0.02, 0.3, 0.9, 1.7, 4, 8},
                            positive = {0.2, 0.7, 1, 2.5, 9};
#define CHECK(expression, points) \
  check_duals(                    \
      #expression, [](auto x) { return expression; }, points)
  CHECK(scalar::exp(x), (std::vector<double>{-3, -0.1, 0.4, 2}));
  CHECK(scalar::log(x), positive);
  CHECK(scalar::sqrt(x), positive);
  CHECK(scalar::tanh(x), line);
  CHECK(scalar::sigmoid(x), line);
  CHECK(scalar::silu(x), line);
  CHECK(scalar::gelu_tanh(x), line);
  CHECK(scalar::gelu_erf(x), line);
  CHECK(scalar::erf(x), line);
  CHECK(scalar::normal_cdf(x), line);
  CHECK(scalar::softplus(x), line);
  CHECK(scalar::sin(x), line);
  CHECK(scalar::cos(x), line);
  CHECK(scalar::abs(x), line);
  CHECK(scalar::square(x), line);
  CHECK(scalar::reciprocal(x), positive);
  CHECK(scalar::pow(x, 2.5), positive);
  CHECK(scalar::pow(x, 3), line);
  CHECK(scalar::pow(x, -0.5), positive);
  CHECK(scalar::max(x, 0.5f), line);
  CHECK(scalar::min(x * x, x + 2.0f), line);
  CHECK(scalar::clamp(x, -1, 2), line);
  CHECK((2.0f * x - 1.0f) / (x * x + 3.0f) + 1.0f / (4.0f + x * x) - (0.5f - x) / 8.0f, line);
  CHECK(scalar::exp(-scalar::square(scalar::sin(x))) * scalar::tanh(x), line);
#undef CHECK
}

TEST(Dual, KnownSecondDerivatives) {
  using D = Dual<Dual<double>>;
  const auto at = [](double x) { return D({x, 1.0}, {1.0, 0.0}); };
  EXPECT_NEAR(scalar::exp(at(1.3)).d.d, std::exp(1.3), 1e-14);
  EXPECT_NEAR(scalar::log(at(2)).d.d, -0.25, 1e-15);
  EXPECT_NEAR(scalar::sin(at(0.7)).d.d, -std::sin(0.7), 1e-15);
  EXPECT_NEAR(scalar::silu(at(0)).d.d, 0.5, 1e-15);                                        // 2 sigmoid'(0)
  EXPECT_NEAR(scalar::gelu_erf(at(0)).d.d, std::sqrt(2 / 3.14159265358979323846), 1e-14);  // 2 phi(0)
  EXPECT_NEAR(scalar::pow(at(3), 4).d.d, 108, 1e-11);
  EXPECT_EQ(scalar::pow(at(0), 2).d.d, 2.0);
  EXPECT_EQ(scalar::pow(at(0), 1).d.v, 1.0);
  EXPECT_EQ(scalar::pow(at(0), 0).d.v, 0.0);
  EXPECT_NEAR((1.0 / at(2)).d.d, 0.25, 1e-15);
}

TEST(Dual, SubgradientRules) {
  using D = Dual<float>;
  EXPECT_EQ(scalar::max(D(0, 1), 0).d, 0.0f);
  EXPECT_EQ(scalar::max(D(2, 1), D(2, 5)).d, 5.0f);
  EXPECT_EQ(scalar::min(D(2, 1), D(2, 5)).d, 5.0f);
  EXPECT_EQ(scalar::clamp(D(1, 1), 0, 1).d, 0.0f);
  EXPECT_EQ(scalar::clamp(D(0, 1), 0, 1).d, 0.0f);
  EXPECT_EQ(scalar::clamp(D(0.5f, 1), 0, 1).d, 1.0f);
  EXPECT_EQ(scalar::abs(D(0, 1)).d, 0.0f);
  EXPECT_EQ(scalar::abs(D(-2, 1)).d, -1.0f);
}

}  // namespace
}  // namespace costate
