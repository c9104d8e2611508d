// Dormant and active neurons of a critic, and making them anew. The score of neuron i of a hidden layer is its share of the
// layer's activity on a batch,
//   s_i = mean |relu(h_i)| / mean_j mean |relu(h_j)|,   h the layer's output before its nonlinearity,
// and does not change when the layer is multiplied by a positive number. Neurons with s_i <= threshold are dormant (Sokar et
// al., arXiv 2302.12902, who make those anew); arXiv 2402.08552 makes the active ones anew, as carriers of what was learned
// first. Weights into and out of a neuron are drawn from the law of a fresh critic, its bias is 0, and the optimiser forgets
// its moments there; everything else keeps its bits.
#pragma once
#include <costate/finetune/policy_gradient/critic.h>

namespace costate::finetune {

// (hidden layers)(neurons). On the meta device zeros.
std::vector<std::vector<double>> neuron_scores(const ValueMlp& network, const Tensor& x, const Tensor& t, const Tensor& labels);

using NeuronMasks = std::vector<std::vector<std::uint8_t>>;  // (hidden layers)(neurons): 1: made anew

// `linear`: the law of fresh weights, see CriticOptions. Throws Error(argument) unless the masks fit the network.
void reset_neurons(ValueMlp& network, nn::AdamW& optimiser, const NeuronMasks& masks, bool linear, nn::Init& init);

}  // namespace costate::finetune
