#include <costate/finetune/gradients.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/parallel.h>

#include <algorithm>

namespace costate::finetune {

void add(Gradients& sum, Gradients more) {
  sum.loss += more.loss;
  if (sum.parameters.empty()) {
    sum.parameters = std::move(more.parameters);
    return;
  }
  for (std::size_t i = 0; i < sum.parameters.size() && i < more.parameters.size(); ++i)
    add_in_place(sum.parameters[i], more.parameters[i]);
}

Gradients gradient_of(Tape&& tape, const Var& loss, const std::vector<Var>& watched) {
  Gradients g;
  g.loss = loss.value().item();
  g.parameters = std::move(tape).vjp(loss, watched);
  return g;
}

Gradients sum_chunks(std::int64_t parameter_bytes, std::int64_t chunks,
                     const std::function<Gradients(std::int64_t)>& of_chunk) {
  require(chunks >= 1, "sum_chunks: ", chunks, " chunks; expected at least 1");
  const memory::TagScope scope(memory::Tag::gradients);
  constexpr std::int64_t budget = std::int64_t{256} << 20;  // for the lanes' gradients together
  const std::int64_t lanes =
      std::min(chunks, std::clamp<std::int64_t>(budget / std::max<std::int64_t>(parameter_bytes, 1), 1, 8));
  std::vector<Gradients> lane(static_cast<std::size_t>(lanes));
  parallel(lanes, [&](std::int64_t l) {
    for (std::int64_t c = chunks * l / lanes; c < chunks * (l + 1) / lanes; ++c) {
      check_cancelled("training");
      add(lane[l], of_chunk(c));
    }
  });
  Gradients sum = std::move(lane[0]);
  for (std::int64_t l = 1; l < lanes; ++l) add(sum, std::move(lane[l]));
  return sum;
}

}  // namespace costate::finetune
