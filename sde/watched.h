// What the processes share about parameters.
#pragma once
#include <costate/sde/field.h>
#include <costate/sde/sde.h>

namespace costate::sde::detail {

// A field without parameters watches nothing.
inline Field watch(const ParametricField& field, Tape& tape, std::vector<Var>& watched) {
  return field.watch ? field.watch(tape, watched) : field.frozen;
}
inline Sde watch(const ParametricSde& sde, Tape& tape, std::vector<Var>& watched) {
  return sde.watch ? sde.watch(tape, watched) : sde.frozen;
}

template <class Parametric>
std::vector<Shape> shapes_of(const Parametric& parametric) {
  Tape tape;
  std::vector<Var> watched;
  watch(parametric, tape, watched);
  std::vector<Shape> shapes;
  for (const Var& v : watched) shapes.push_back(v.shape());
  return shapes;
}

// A unit vector along one number of the parameters wrt[0], wrt[1], ... (all but the last of wrt); undefined where it is
// zeros, and everywhere for number -1.
inline std::vector<Tensor> one_number(const std::vector<Var>& wrt, std::int64_t number) {
  std::vector<Tensor> directions(wrt.size());
  for (std::size_t i = 0; i + 1 < wrt.size() && number >= 0; number -= wrt[i].numel(), ++i) {
    if (number >= wrt[i].numel()) continue;
    Tensor e = Tensor::zeros(wrt[i].shape(), wrt[i].value().dtype(), wrt[i].value().device());
    const auto n = static_cast<std::size_t>(number);
    if (!e.is_meta()) e.dtype() == DType::f64 ? void(e.mutate<double>()[n] = 1) : void(e.mutate<float>()[n] = 1);
    directions[i] = std::move(e);
    break;
  }
  return directions;
}

}  // namespace costate::sde::detail
