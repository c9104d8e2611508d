// Blocks whose activations are computed again in the sweep instead of kept (Griewank and Walther 2008, chapter 12; Chen, Xu,
// Zhang, Guestrin, arXiv 1604.06174): the tape of a network of such blocks keeps the blocks' inputs, and a sweep holds the
// activations of one block at a time, for one more forward pass. The gradients have the bits of the stored ones.
//
// It is a property of the model as a value, its member `recompute`, that copies have too:
//
//   const Network lean = network.recompute_blocks();
#pragma once
#include <costate/nn/model.h>

namespace costate::nn {

// call(block, inputs), recorded as one checkpoint on the tape of the inputs and of the block's parameters; parameters that
// are not tracked, and undefined inputs, cost nothing. `Call` is Var(const Block&, std::span<const Var> inputs), and what it
// differentiates beside the block's parameters comes through `inputs`. First order only: a recorded sweep is refused.
template <class Block, class Call>
Var recompute_block(const Block& block, std::vector<Var> inputs, Call call) {
  const std::size_t own = inputs.size();
  // The tracked parameters become operands; the copy that the record keeps gets its parameters back when it is called.
  Block copy = block;
  std::vector<std::size_t> places;  // of the tracked ones among all, in visiting order
  std::size_t place = 0;
  visit(copy, [&](const std::string&, Var& p) {
    if (p.tracked()) {
      inputs.push_back(p);
      places.push_back(place);
      p = Var(p.value());
    }
    ++place;
  });
  bool tracked = false;
  for (const Var& v : inputs) tracked = tracked || v.tracked();
  if (!tracked) return call(block, std::span<const Var>(inputs));
  return checkpoint(
      [copy = std::move(copy), places = std::move(places), own, call = std::move(call)](std::span<const Var> in) {
        Block bound = copy;
        std::size_t at = 0, next = 0;
        visit(bound, [&](const std::string&, Var& p) {
          if (next < places.size() && places[next] == at) p = in[own + next++];
          ++at;
        });
        return call(bound, in.first(own));
      },
      inputs);
}

}  // namespace costate::nn
