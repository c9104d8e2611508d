#include <costate/finetune/policy_gradient/neuron_reset.h>

#include <costate/autograd/ops.h>

namespace costate::finetune {
namespace {

// Writes `fresh` (or zeros, if undefined) to rows (axis 0) resp. columns (axis 1) of a matrix or vector that are masked.
void overwrite(Tensor& target, const Tensor& fresh, const std::vector<std::uint8_t>& mask, int axis) {
  if (target.device() != Device::cpu) {
    Tensor on_host = target.to(Device::cpu);
    overwrite(on_host, fresh.defined() ? fresh.to(Device::cpu) : fresh, mask, axis);
    target = on_host.to(target.device());
    return;
  }
  const std::int64_t rows = target.extent(0), columns = target.rank() == 2 ? target.extent(1) : 1;
  const auto to = target.mutate<float>();
  const auto from = fresh.defined() ? fresh.values<float>() : std::span<const float>{};
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      if (mask[axis == 0 ? i : j]) to[i * columns + j] = from.empty() ? 0.0f : from[i * columns + j];
}

}  // namespace

std::vector<std::vector<double>> neuron_scores(const ValueMlp& network, const Tensor& x, const Tensor& t,
                                               const Tensor& labels) {
  std::vector<std::vector<double>> scores;
  Var h = network.inputs(Var(x), Var(t), labels);
  for (const nn::Linear& layer : network.hidden) {
    const Var before = linear(h, layer.weight, layer.bias);
    const Tensor activity = mean(relu(before), 0).value();
    h = layer.activation == Activation::none ? before : relu(before);
    std::vector<double> s(static_cast<std::size_t>(activity.numel()));
    if (!activity.is_meta()) {
      double total = 0;
      s = activity.to_doubles();
      for (const double v : s) total += v;
      for (double& v : s) v /= total / static_cast<double>(s.size()) + 1e-9;
    }
    scores.push_back(std::move(s));
  }
  return scores;
}

void reset_neurons(ValueMlp& network, nn::AdamW& optimiser, const NeuronMasks& masks, bool linear, nn::Init& init) {
  const std::size_t depth = network.hidden.size();
  require(masks.size() == depth, "reset_neurons: masks of ", masks.size(), " layers for a critic of ", depth);
  for (std::size_t l = 0; l < depth; ++l)
    require(static_cast<std::int64_t>(masks[l].size()) == network.hidden[l].weight.extent(0), "reset_neurons: a mask of ",
            masks[l].size(), " neurons for hidden layer ", l, " of ", network.hidden[l].weight.extent(0));
  for (std::size_t l = 0; l < depth; ++l) {
    nn::Linear& own = network.hidden[l];
    nn::Linear& next = l + 1 < depth ? network.hidden[l + 1] : network.output;
    const auto fresh = [&](const nn::Linear& layer, bool last) {
      return fresh_critic_layer(init, layer.weight.extent(1), layer.weight.extent(0), linear, last).weight.value();
    };
    const Tensor in = fresh(own, false), out = fresh(next, l + 1 == depth);
    if (in.is_meta()) continue;
    overwrite(own.weight.value(), in, masks[l], 0);
    overwrite(own.bias.value(), {}, masks[l], 0);
    overwrite(next.weight.value(), out, masks[l], 1);
    // Parameters are visited as weight and bias of every layer in turn, the output's after the hidden ones.
    for (auto* moments : {&optimiser.first_moments(), &optimiser.second_moments()}) {
      if (moments->empty()) continue;
      overwrite((*moments)[2 * l], {}, masks[l], 0);
      overwrite((*moments)[2 * l + 1], {}, masks[l], 0);
      overwrite((*moments)[2 * l + 2], {}, masks[l], 1);
    }
  }
}

}  // namespace costate::finetune
