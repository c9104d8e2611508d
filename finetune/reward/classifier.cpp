#include <costate/autograd/ops.h>
#include <costate/finetune/reward/classifier.h>
#include <costate/finetune/reward/features.h>

namespace costate::finetune {

Reward classifier_reward(nn::Classifier classifier, std::vector<std::int32_t> targets) {
  const std::int64_t classes = classifier.output.weight.extent(0);
  require(!targets.empty(), "classifier reward: no target class");
  for (const std::int32_t t : targets)
    require(t >= 0 && t < classes, "classifier reward: target ", t, " is outside 0 to ", classes - 1);
  return {"classifier", [classifier = std::move(classifier), targets = std::move(targets)](const Var& x) {
            const Var logits = classifier(x);
            const std::int64_t rows = x.extent(0);
            if (targets.size() == 1)
              return nn::log_likelihood(logits, Tensor::full({rows}, targets[0], DType::i32, x.device()));
            std::vector<double> mask(static_cast<std::size_t>(logits.extent(1)));
            for (const std::int32_t t : targets) mask[t] = 1;
            return log(sum(mul(softmax(logits), constant_like(mask, {1, logits.extent(1)}, logits)), 1));
          }};
}

}  // namespace costate::finetune
