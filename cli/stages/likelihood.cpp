#include "stages/likelihood.h"

#include <algorithm>

namespace costate::cli {

Json likelihood(const Config& c, const sde::Field& field, const data::Dataset& set, Device device) {
  const LikelihoodConfig& l = c.evaluate.likelihood;
  const std::int64_t count = std::min(l.count, set.count), dim = data::item_size(set);
  sde::LikelihoodOptions options;
  options.t = sde::uniform_grid(static_cast<int>(l.steps));
  for (double& t : options.t) t = c.sampler.start + (1 - l.margin - c.sampler.start) * t;
  options.trace.method = sde::trace_method(l.trace);
  options.trace.probes = static_cast<int>(l.probes);
  options.key = {seed_of(c, Purpose::evaluate), 0};
  Tensor x, labels;
  {
    const memory::TagScope scope(memory::Tag::data);
    const std::vector<float> values(set.values.begin(), set.values.begin() + count * dim);
    x = Tensor::from(values, item_shape(set).with_front(count), device);
    if (c.network.conditional) {
      const std::vector<std::int32_t> classes(set.labels.begin(), set.labels.begin() + count);
      labels = Tensor::from(classes, {count}, device);
    }
  }
  const sde::Likelihood found =
      sde::log_likelihood({field, make_schedule(c), sde::parametrisation(c.prediction)}, x, labels, options);
  if (device == Device::meta) return Json::object();
  std::vector<double> bits;
  for (const double nats : found.log_likelihood) bits.push_back(sde::bits_per_dim(nats, dim));
  return {{"items", count},
          {"nats", json_estimate(finetune::mean_estimate(found.log_likelihood))},
          {"bits_per_dim", json_estimate(finetune::mean_estimate(bits))}};
}

}  // namespace costate::cli
