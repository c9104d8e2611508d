#include "stages/evaluate/samples.h"

#include <algorithm>
#include <cmath>

namespace costate::cli {
namespace {

constexpr std::int64_t slice_rows = 1024;  // samples that the reward and the judge look at at a time

// Calls body(rows) for slices of x.
template <class Body>
void each_slice(const Tensor& x, const Body& body) {
  for (std::int64_t first = 0; first < x.extent(0); first += slice_rows)
    body(x.slice(first, std::min(slice_rows, x.extent(0) - first)));
}

}  // namespace

Opinion opinion(const nn::Classifier& judge, const Tensor& x) {
  Opinion out;
  each_slice(x, [&](const Tensor& rows) {
    const finetune::Judgement j = finetune::judge(judge, rows);
    out.width = j.width;
    out.label.insert(out.label.end(), j.label.begin(), j.label.end());
    out.feature.insert(out.feature.end(), j.feature.begin(), j.feature.end());
  });
  return out;
}

Samples look_at(std::string name, const Tensor& x, const finetune::Reward& reward, const nn::Classifier* judge) {
  Samples out{std::move(name), x.to_doubles(), {}, {}};
  each_slice(x, [&](const Tensor& rows) {
    const std::vector<double> r = reward(rows).to_doubles();
    out.reward.insert(out.reward.end(), r.begin(), r.end());
  });
  if (judge) out.opinion = opinion(*judge, x);
  if (!x.is_meta())
    for (const std::vector<double>* v : {&out.values, &out.reward})
      if (!std::all_of(v->begin(), v->end(), [](double e) { return std::isfinite(e); }))
        fail(Fault::numerical, {"evaluate: the samples '", out.name, "' or their rewards are not all finite"});
  return out;
}

}  // namespace costate::cli
