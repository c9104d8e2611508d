#include <costate/sde/sde.h>

#include <costate/autograd/ops.h>

#include <algorithm>
#include <cmath>

namespace costate::sde {

std::string_view name(Calculus calculus) { return calculus == Calculus::ito ? "Ito" : "Stratonovich"; }

std::string_view name(Diffusion::Kind kind) {
  constexpr std::string_view names[] = {"no", "additive", "matrix", "diagonal"};
  return names[static_cast<std::size_t>(kind)];
}

Diffusion Diffusion::of(std::function<double(double t)> sigma) {
  Diffusion d;
  d.kind = Kind::additive, d.sigma = std::move(sigma);
  return d;
}
Diffusion Diffusion::of_matrix(std::function<Var(double t)> matrix, std::int64_t noise_dim) {
  require(noise_dim >= 1, "Diffusion::of_matrix: noise of dimension ", noise_dim, "; expected 1 or more");
  Diffusion d;
  d.kind = Kind::matrix, d.matrix = std::move(matrix), d.noise_dim = noise_dim;
  return d;
}
Diffusion Diffusion::of_elements(Field diagonal) {
  Diffusion d;
  d.kind = Kind::diagonal, d.diagonal = std::move(diagonal);
  return d;
}

Shape noise_shape(const Sde& sde, const Shape& x) {
  if (sde.diffusion.kind != Diffusion::Kind::matrix) return x;
  require(x.rank() == 2, "sde: matrix noise drives states of shape (rows, dim), but these have shape ", x);
  return {x[0], sde.diffusion.noise_dim};
}

namespace {

// The drift as an affine function of x and the prediction, at one time.
using Coefficients = std::function<Affine(double t)>;

Field affine_drift(const Field& prediction, const Coefficients& at) {
  return [prediction, at](const Var& x, const Var& t, const Tensor& labels) {
    const Var p = prediction(x, t, labels);
    // Without values any numbers do: the same op, whatever they are.
    if (t.value().is_meta()) return axpby(1, x, 1, p);
    const std::vector<double> times = t.value().to_doubles();
    require(!times.empty(), "sde: the drift was asked for at no time");
    if (std::all_of(times.begin(), times.end(), [&](double s) { return s == times[0]; })) {
      const Affine c = at(times[0]);
      return axpby(c.x, x, c.prediction, p);
    }
    std::vector<double> of_x, of_prediction;
    for (const double s : times) {
      const Affine c = at(s);
      of_x.push_back(c.x), of_prediction.push_back(c.prediction);
    }
    std::vector<std::int64_t> extents(static_cast<std::size_t>(x.rank()), 1);
    extents[0] = x.extent(0);
    const auto column = [&](const std::vector<double>& values) {
      return Var(Tensor::from(values, Shape(extents)).to(x.dtype()).to(x.device()));
    };
    return multiply_add(column(of_x), x, column(of_prediction) * p);
  };
}

// `make` turns the field of a prediction into an equation.
ParametricSde parametric(const ParametricField& prediction, std::function<Sde(const Field&)> make) {
  ParametricSde result;
  result.frozen = make(prediction.frozen);
  if (prediction.watch)
    result.watch = [watch = prediction.watch, make](Tape& tape, std::vector<Var>& watched) {
      return make(watch(tape, watched));
    };
  return result;
}

}  // namespace

ParametricSde probability_flow(const ParametricField& prediction, const Schedule& schedule, Parametrisation parametrisation) {
  return parametric(prediction, [=](const Field& field) {
    Sde sde;
    if (parametrisation == Parametrisation::velocity)
      sde.drift = field;
    else
      sde.drift = affine_drift(
          field, [=](double t) { return conversion(parametrisation, Parametrisation::velocity, schedule, t); });
    return sde;
  });
}

ParametricSde generative_sde(const ParametricField& prediction, const Schedule& schedule, Parametrisation parametrisation,
                             std::function<double(double t)> sigma) {
  const auto checked = [sigma = std::move(sigma)](double t) {
    const double s = sigma(t);
    require(s >= 0 && std::isfinite(s), "generative_sde: sigma(", t, ") is ", s, "; expected a finite number >= 0");
    return s;
  };
  return parametric(prediction, [=](const Field& field) {
    Sde sde;
    sde.drift = affine_drift(field, [=](double t) {
      const PathPoint point = schedule.at(t);
      const Affine v = conversion(parametrisation, Parametrisation::velocity, point);
      const double s = checked(t), half = s * s / 2;
      if (half == 0) return v;
      const Affine score = conversion(parametrisation, Parametrisation::score, point);
      return Affine{v.x + half * score.x, v.prediction + half * score.prediction};
    });
    sde.diffusion = Diffusion::of(checked);
    return sde;
  });
}

}  // namespace costate::sde
