// Models are values: watching, cloning, sharing until one is written.
#include "nn_support.h"

#include <costate/nn/mlp.h>
#include <costate/nn/network.h>
#include <costate/nn/optim.h>
#include <costate/tensor/packed.h>

namespace costate::nn {
namespace {

using std::vector;

// Wide enough for packed layouts; the output layer is drawn too, so that every parameter has a gradient.
VelocityMlp wide_network(std::uint64_t seed = 1) {
  MlpOptions o;
  o.dim = 24, o.hidden = 96, o.depth = 3, o.residual = true, o.norm = true;
  Init init(seed);
  VelocityMlp m = make_velocity_mlp(o, init);
  m.output = make_linear(init, 96, 24);
  return m;
}
const Tensor x = random_tensor({40, 24}, 1, DType::f32), t = Tensor::full({40}, 0.4);

Tensor outputs(const VelocityMlp& m) { return m(Var(x), Var(t), Tensor()).value(); }

// One step of AdamW down the mean square of the output.
void improve(VelocityMlp& m, AdamW& adamw) {
  vector<Tensor> gradients;
  {
    Tape tape;
    vector<Var> watched;
    const VelocityMlp tracked = watch(m, tape, watched);
    const Var loss = mean(square(tracked(Var(x), Var(t), Tensor())));
    gradients = std::move(tape).vjp(loss, watched);
  }
  adamw.step(handles(m), gradients, 0.01);
}

TEST(Model, WatchRecordsACopyInVisitingOrder) {
  const VelocityMlp m = wide_network();
  Tape tape;
  vector<Var> watched;
  const VelocityMlp tracked = watch(m, tape, watched);
  const auto list = parameters(m);
  ASSERT_EQ(watched.size(), list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    EXPECT_TRUE(watched[i].tracked());
    EXPECT_TRUE(watched[i].value().shares_storage_with(list[i]));
  }
  VelocityMlp frozen = m;
  visit(frozen, [](const std::string& name, Var& p) { EXPECT_FALSE(p.tracked()) << name; });
  const auto nodes = tape.size();
  const Var y = frozen(Var(x), Var(t), Tensor());
  EXPECT_FALSE(y.tracked());
  EXPECT_EQ(tape.size(), nodes);  // what is not watched is not recorded
  EXPECT_TRUE(same_bits(tracked(Var(x), Var(t), Tensor()).value(), y.value()));
  for (const Tensor& g : tape.vjp(sum(square(tracked(Var(x), Var(t), Tensor()))), watched)) {
    double largest = 0;
    for (const double v : g.to_doubles()) largest = std::max(largest, std::abs(v));
    EXPECT_GT(largest, 0);
  }
}

TEST(Model, CloneSharesNothing) {
  const VelocityMlp m = wide_network();
  const VelocityMlp c = clone(m);
  const auto a = parameters(m), b = parameters(c);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_FALSE(a[i].shares_storage_with(b[i]));
    EXPECT_TRUE(same_bits(a[i], b[i]));
    EXPECT_EQ(b[i].storage()->tag, memory::Tag::parameters);
  }
}

TEST(Model, CopiesShareUntilOneIsWritten) {
  const VelocityMlp base = wide_network();
  const Tensor before = outputs(base);
  const auto original = parameters(clone(base));
  VelocityMlp tuned = base;
  const auto live = memory::live().by_tag[static_cast<std::size_t>(memory::Tag::parameters)];
  for (std::size_t i = 0; i < original.size(); ++i)
    EXPECT_TRUE(parameters(tuned)[i].shares_storage_with(parameters(base)[i]));
  AdamW adamw;
  improve(tuned, adamw);
  EXPECT_GT(memory::live().by_tag[static_cast<std::size_t>(memory::Tag::parameters)], live);
  const auto a = parameters(base), b = parameters(tuned);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_FALSE(a[i].shares_storage_with(b[i]));
    EXPECT_TRUE(same_bits(a[i], original[i]));
    EXPECT_FALSE(same_bits(b[i], original[i]));
    EXPECT_EQ(b[i].storage()->tag, memory::Tag::parameters);
  }
  EXPECT_TRUE(same_bits(outputs(base), before));
  EXPECT_FALSE(same_bits(outputs(tuned), before));
}

TEST(Model, PackedLayoutsFollowEveryUpdate) {
  VelocityMlp m = wide_network();
  // Where the kernels offer no packed layout the values are compared all the same.
  const bool offered = kernels(Device::cpu).packed_bytes(DType::f32, Precision::f32, 96, 96) > 0;
  AdamW adamw;
  for (int step = 0; step < 3; ++step) {
    const Tensor before = outputs(m);  // packs
    EXPECT_EQ(packed(m.layers[1].weight.value(), true).offered, offered);
    const void* storage = m.layers[1].weight.value().raw();
    improve(m, adamw);
    EXPECT_EQ(m.layers[1].weight.value().raw(), storage);  // written in place: nobody shares it
    const Tensor after = outputs(m);
    EXPECT_FALSE(same_bits(after, before));
    EXPECT_TRUE(same_bits(after, outputs(clone(m))))
        << "step " << step;  // a clone has never been packed before
  }
  // Writing one element by hand counts too.
  const Tensor before = outputs(m);
  m.layers[1].weight.value().mutate<float>()[5] += 1;
  EXPECT_FALSE(same_bits(outputs(m), before));
  EXPECT_TRUE(same_bits(outputs(m), outputs(clone(m))));
  m.layers[1].weight.value().fill(0.25);
  EXPECT_TRUE(same_bits(outputs(m), outputs(clone(m))));
}

TEST(Model, TuningDescends) {
  VelocityMlp m = wide_network();
  AdamW adamw;
  const auto size = [&] {
    double s = 0;
    for (const double v : outputs(m).to_doubles()) s += v * v;
    return s;
  };
  const double before = size();
  for (int i = 0; i < 20; ++i) improve(m, adamw);
  EXPECT_LT(size(), 0.1 * before);
}

}  // namespace
}  // namespace costate::nn
