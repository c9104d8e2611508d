// The smallest control problem, solved by gradient descent on a recorded trajectory.
//
//   minimise over u_0..u_{K-1}:  sum_k h/2 |u_k|^2 + 1/2 |x_K - target|^2,   x_{k+1} = x_k + h u_k,   h = 1/K
//
// The costate a = dJ/dx is constant along the path here (the drift is zero), and the optimum, u_k = -a_k, is the same at
// every step: u* = (target - x_0) / 2.
#include <costate/autograd/ops.h>
#include <cstdio>

int main() {
  using namespace costate;
  constexpr int steps = 20;
  constexpr double h = 1.0 / steps;
  const Tensor start = Tensor::from(std::vector<double>{0.0, 1.0}, {2});
  const Tensor target = Tensor::from(std::vector<double>{2.0, -1.0}, {2});
  Tensor control = Tensor::zeros({steps, 2}, DType::f64);

  for (int iteration = 0; iteration < 60; ++iteration) {
    Tape tape;
    const Var u = tape.watch(control);
    Var x = start;
    for (int k = 0; k < steps; ++k) x = x + h * reshape(narrow(u, 0, k, 1), {2});
    const Var cost = (0.5 * h) * sum(square(u)) + 0.5 * sum(square(x - target));
    const Tensor gradient = std::move(tape).vjp(cost, u);
    control = axpby(1.0, control, -0.5 / h, gradient).value();
    if (iteration % 20 == 0) std::printf("iteration %2d  cost %.6f\n", iteration, cost.value().item());
  }
  const auto u = control.values<double>();
  std::printf("control (%.6f, %.6f), in closed form (1, -1)\n", u[0], u[1]);
}
