// Keys of what evaluations look at.
#include <costate/tensor/error.h>

#include "config/fields.h"
#include "config/read.h"

namespace costate::cli {

void add_evaluation_fields(std::vector<Field>& list, EvaluateConfig& c) {
  constexpr double any = std::numeric_limits<double>::infinity();
  list.push_back({"evaluate.checkpoints",
                  &c.checkpoints,
                  "The intermediate checkpoints of fine-tuning as well: curve.csv with reward, path KL and diversity against "
                  "updates, reward queries and network evaluations; needs finetune.checkpoint_every.",
                  {},
                  {}});
  list.push_back(
      {"evaluate.methods", &c.methods, "The sets of sample.methods as well, made anew with evaluate.count samples.", {}, {}});
  list.push_back({"evaluate.vendi.count",
                  &c.vendi.count,
                  "First samples of each set that the Vendi score is of, at the cost of their number cubed.",
                  {2, 20000},
                  {}});
  list.push_back({"evaluate.vendi.order",
                  &c.vendi.order,
                  "Order of the Vendi score; larger ones look at the common kinds of samples, smaller ones at the rare.",
                  {0, any, true, false},
                  {}});
  list.push_back({"evaluate.vendi.bandwidth",
                  &c.vendi.bandwidth,
                  "Without a judge: bandwidth of the Gaussian kernel on what the network sees; 0: a quarter of the data's "
                  "standard deviation. With a judge the kernel is the cosine of its features.",
                  {0, any},
                  {}});
}

void check_evaluation(const Config& c) {
  const EvaluateConfig& e = c.evaluate;
  require(!e.checkpoints || c.finetune.checkpoint_every > 0,
          "evaluate.checkpoints: there are no intermediate checkpoints, as finetune.checkpoint_every is 0");
  require(!e.methods || !c.sample.methods.empty(), "evaluate.methods: there are none, as sample.methods is []");
  require(e.vendi.bandwidth == 0 || c.data.held_out == 0, "evaluate.vendi.bandwidth: found ", e.vendi.bandwidth,
          ", but with a judge (data.held_out above 0) the kernel is the cosine of its features and has none");
}

}  // namespace costate::cli
