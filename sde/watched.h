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
    const Tensor e = Tensor::zeros(wrt[i].shape(), wrt[i].value().dtype(), wrt[i].value().device());
    e.reshape({-1}).slice(number, 1).fill(1);
    directions[i] = e;
    break;
  }
  return directions;
}

// J v for each direction v of wrt, J = d result/d wrt: a tangent of the last of wrt together with one of the numbers of the
// others. The tape is swept twice: u -> J^T u is linear, and its transpose is J.
inline std::vector<Tensor> push_forward(Tape& tape, const Var& result, const std::vector<Var>& wrt,
                                        const std::vector<Tensor>& tangents, const std::vector<std::int64_t>& numbers) {
  const Var u = tape.watch(Tensor::zeros(result.shape(), result.value().dtype(), result.value().device()));
  const std::vector<Var> pulled = tape.recorded_vjp(result, u, wrt);
  std::vector<Tensor> moved;
  for (std::size_t i = 0; i < tangents.size(); ++i) {
    std::vector<Tensor> directions = one_number(wrt, numbers[i]);
    directions.back() = tangents[i];
    moved.push_back(tape.vjp(pulled, directions, {&u, 1})[0]);
  }
  return moved;
}

}  // namespace costate::sde::detail
