// A foreign program's smallest use of the library: a tensor, an op, a gradient. d sum(x^2) / dx = 2 x.
#include <costate/autograd/ops.h>
#include <vector>

int main() {
  const std::vector<float> values{1.0f, -2.0f, 0.5f};
  costate::Tape tape;
  const costate::Var x = tape.watch(costate::Tensor::from(values, {3}));
  const costate::Tensor gradient = std::move(tape).vjp(costate::sum(costate::square(x)), x);
  for (std::size_t i = 0; i < values.size(); ++i)
    if (gradient.values<float>()[i] != 2.0f * values[i]) return 1;
  return 0;
}
