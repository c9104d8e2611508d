#include <costate/finetune/regression/replay_buffer.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/training_state.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

namespace costate::finetune {

ReplayBuffer::ReplayBuffer(const ReplayOptions& options, std::int64_t batch, std::uint64_t seed)
    : options_(options), count_(options.size / batch), seed_(seed) {
  require(options.size >= batch && options.size % batch == 0, "replay: size is ", options.size,
          "; expected a multiple of the batch, ", batch);
  require(options.passes >= 1, "replay: passes is ", options.passes, "; expected at least 1");
  require(options.least_ess >= 0 && options.least_ess < 1, "replay: least_ess is ", options.least_ess,
          "; expected a share, 0 <= least_ess < 1");
}

void CostateBatch::visit_state(StateVisitor& v) {
  const memory::TagScope scope(memory::Tag::trajectory);
  require(kept.empty(), "replay: a batch keeps passes of the network, which are not of its state");
  v("paths", paths), v("steps", steps), v("costates", costates), v("reward", reward), v("valid", valid);
  v("reward_gradient", reward_gradient), v("own", own), v("later", later);
}

void ReplayBuffer::visit_state(StateVisitor& v) {
  std::vector<std::size_t> order(order_.begin(), order_.end());
  if (!v.restoring() && order_.empty()) batches_.clear();  // nothing draws from them any more
  v.list("batches", batches_);
  v("order", order), v("collections", collections_);
  for (const std::size_t i : order)
    if (i >= batches_.size())
      fail(Fault::data, {"the state of a training: a replay buffer draws batch ", i, " of ", batches_.size()});
  order_.assign(order.begin(), order.end());
}

void ReplayBuffer::fill(std::vector<CostateBatch> collection) {
  require(static_cast<std::int64_t>(collection.size()) == count_, "replay: found ", collection.size(), " batches, expected ",
          count_);
  batches_ = std::move(collection);
  order_.clear();
  for (std::int64_t pass = 0; pass < options_.passes; ++pass)
    for (const std::int64_t i :
         permutation(count_, seed_, static_cast<std::uint64_t>(collections_ * options_.passes + pass)))
      order_.push_back(static_cast<std::size_t>(i));
  ++collections_;
}

CostateBatch& ReplayBuffer::draw() {
  require(!order_.empty(), "replay: the buffer is empty");
  const std::size_t i = order_.front();
  order_.pop_front();
  return batches_[i];
}

std::vector<double> log_policy_ratio(const ControlProblem& problem, const Trajectories& paths, const sde::Field& tuned) {
  const sde::Chain& chain = problem.chain;
  std::vector<double> total(static_cast<std::size_t>(paths.rows()));
  sde::each_chunk(paths.rows(), [&](std::int64_t begin, std::int64_t n) {
    const Tensor labels = sde::rows_of(paths.labels, begin, n);
    for (int k = 0; k < chain.steps(); ++k) {
      if (chain.std[k] == 0) continue;
      const Tensor x = paths.states[static_cast<std::size_t>(k)].slice(begin, n);
      const Tensor now = tuned(Var(x), Var(sde::step_time(chain, k, x)), labels).value();
      const double scale = chain.C[k] / chain.std[k];
      // d = u_new - u_old: |e|^2/2 - |e - d|^2/2 = e . d - |d|^2/2.
      const Var d = axpby(scale, Var(now), -scale, Var(paths.predictions[static_cast<std::size_t>(k)].slice(begin, n)));
      const Var e(sde::step_noise(k, x, paths.key.from(begin)));
      const Tensor log_ratio = sum(reshape(sub(mul(e, d), 0.5 * square(d)), {n, -1}), 1).value();
      if (log_ratio.is_meta()) continue;
      const auto values = log_ratio.to_doubles();
      for (std::int64_t i = 0; i < n; ++i) total[static_cast<std::size_t>(begin + i)] += values[static_cast<std::size_t>(i)];
    }
  });
  return total;
}

}  // namespace costate::finetune
