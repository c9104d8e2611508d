#include "stages/evaluate/control_error.h"

#include "stages/evaluation.h"

namespace costate::cli {
namespace {

double total(const std::vector<double>& v) {
  double sum = 0;
  for (const double e : v) sum += e;
  return sum;
}

}  // namespace

ControlError::ControlError(const finetune::MixtureTilt& tilt, const sde::Chain& chain, std::int64_t count)
    : tilt_(tilt), chain_(chain), chunk_(sde::chunk_rows(count)) {
  const auto chunks = static_cast<std::size_t>((count + chunk_ - 1) / chunk_);
  error_.assign(static_cast<std::size_t>(chain.steps()), std::vector<double>(chunks));
  length_ = error_;
}

void ControlError::look(int k, std::int64_t first, const Tensor& x, const Tensor& tuned, const Tensor& base) {
  const std::int64_t rows = x.extent(0), n = x.numel();
  const std::vector<double> at = x.to_doubles();
  std::vector<double> optimal(at.size()), exact(at.size());
  tilt_.optimal_velocity(chain_.schedule, rows, at.data(), chain_.t[k], optimal.data());
  tilt_.base().velocity(chain_.schedule, rows, at.data(), chain_.t[k], exact.data());
  const std::vector<double> v = tuned.to_doubles(), b = base.to_doubles();
  double error = 0, length = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double wanted = optimal[i] - exact[i], found = v[i] - b[i];
    error += (found - wanted) * (found - wanted), length += wanted * wanted;
  }
  error_[k][first / chunk_] = error, length_[k][first / chunk_] = length;
}

Json ControlError::by_step() const {
  Json out = Json::array();
  for (std::size_t k = 0; k < error_.size(); ++k) out.push_back(json_number(total(error_[k]) / total(length_[k])));
  return out;
}

double ControlError::overall() const {
  double error = 0, length = 0;
  for (std::size_t k = 0; k < error_.size(); ++k) {  // weights of the control: C^2 / std^2
    if (chain_.std[k] == 0) continue;
    const double w = chain_.C[k] * chain_.C[k] / (chain_.std[k] * chain_.std[k]);
    error += w * total(error_[k]), length += w * total(length_[k]);
  }
  return error / length;
}

}  // namespace costate::cli
