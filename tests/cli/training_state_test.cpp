// The state of a training: every objective, given back the state of another one at any iteration, goes on with its bits.
#include <gtest/gtest.h>

#include <costate/finetune/network_field.h>
#include <costate/finetune/training_state.h>
#include <costate/tensor/error.h>
#include <costate/tensor/safetensors.h>

#include <cstring>

#include "build.h"
#include "config/read.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

using finetune::StateVisitor;

constexpr int iterations = 6;

// A few trajectories of points by a small network, away from any optimum; replay, labels and schedules where there are any.
std::unique_ptr<finetune::Objective> small(const std::string& name, const std::vector<std::string>& more) {
  std::vector<std::string> settings{"data.kind=mixture",    "data.count=64",         "network.hidden=8",
                                    "network.depth=1",      "sampler.steps=5",       "finetune.objective=" + name,
                                    "finetune.batch=16",    "finetune.iterations=6", "finetune.lr.peak=1e-2",
                                    "finetune.ema_decay=0.8"};
  settings.insert(settings.end(), more.begin(), more.end());
  const Config c = read_config_text(R"({"reward": {"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]}})",
                                    "the test", settings)
                       .config;
  const RunData data = load_run_data(c, false);
  const nn::Network base = make_network(c, data.model, Device::cpu);
  finetune::ControlProblem problem{.chain = make_chain(c),
                                   .base = finetune::field_of(base),
                                   .sample_shape = item_shape(data.model),
                                   .reward = make_reward(c.reward, data.model, {})};
  for (const std::int64_t l : c.finetune.labels) problem.labels.push_back(static_cast<std::int32_t>(l));
  return objective(name).make({c, std::move(problem), base, nn::clone(base), {}});
}

std::vector<NamedTensor> state_of(finetune::Objective& o) {
  return StateVisitor::collect([&](StateVisitor& v) { o.visit_state(v); });
}
void give_back(finetune::Objective& o, const std::vector<NamedTensor>& state) {
  const std::vector<std::byte> file = safetensors_bytes(state);  // as it is kept
  StateVisitor::restore(SafetensorsFile(file), Device::cpu, [&](StateVisitor& v) { o.visit_state(v); });
}

bool same(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

struct Case {
  std::string name;
  std::vector<std::string> settings;
};

void expect_exact(const Case& test) {
  std::vector<std::vector<NamedTensor>> states;
  std::vector<finetune::Metrics> rows;
  const auto whole = small(test.name, test.settings);
  for (int n = 0; n < iterations; ++n) {
    states.push_back({});
    for (auto& [name, tensor] : state_of(*whole)) states.back().emplace_back(name, tensor.clone());
    rows.push_back(whole->step());
  }
  const std::vector<std::byte> end = safetensors_bytes(state_of(*whole));
  for (int from = 0; from < iterations; ++from) {
    SCOPED_TRACE("from iteration " + std::to_string(from));
    const auto resumed = small(test.name, test.settings);
    ASSERT_NO_THROW(give_back(*resumed, states[static_cast<std::size_t>(from)]));
    for (int n = from; n < iterations; ++n) {
      const finetune::Metrics row = resumed->step();
      const auto& before = rows[static_cast<std::size_t>(n)].entries();
      ASSERT_EQ(row.entries().size(), before.size());
      for (std::size_t i = 0; i < before.size(); ++i) {
        EXPECT_EQ(row.entries()[i].name, before[i].name);
        EXPECT_TRUE(same(row.entries()[i].value, before[i].value)) << before[i].name << " of iteration " << n;
      }
    }
    EXPECT_EQ(safetensors_bytes(state_of(*resumed)), end);
  }
}

class TrainingState : public ::testing::TestWithParam<std::string> {};

TEST_P(TrainingState, GoesOnWithTheSameBits) { expect_exact({GetParam(), {}}); }

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const ObjectiveEntry& e : objectives())
    // Those that see features of a classifier, or pictures, have their states in the cases below or in those of the program.
    if (e.name != "tdpo" && e.name != "tdpo_r" && e.name != "elegant") names.push_back(e.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Objectives, TrainingState, ::testing::ValuesIn(all_names()), [](const auto& p) { return p.param; });

TEST(TrainingStates, OptionsThatKeepMore) {
  const std::string r = "finetune.regression.", p = "finetune.policy_gradient.";
  const std::vector<Case> cases{
      {"adjoint_matching", {r + "replay.size=32", r + "replay.passes=3", r + "replay.weighted=true"}},
      {"adjoint_matching", {"finetune.lr.decay=cosine", "finetune.lr.warmup=3", "finetune.micro_batch=5"}},
      {"pi_ft", {r + "value.contraction_every=2", r + "value.damping=true"}},
      {"tdpo_r", {p + "critic.reset_every=2"}},
      {"tdpo", {p + "critic.updates=2", p + "critic.batch=8"}},
      {"dpok", {p + "replay=3"}},
      {"ddpo_is", {p + "epochs=2", p + "minibatches=3", p + "baseline=label", p + "label_minimum=2", p + "label_buffer=20"}},
      {"score_as_action", {p + "critic.warmup=2"}},
      {"variance", {p + "log_z=running"}}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name + " " + c.settings[0]);
    try {
      expect_exact(c);
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

TEST(TrainingStates, OfAnotherTrainingAreRefused) {
  const auto a = small("adjoint_matching", {});
  const std::vector<NamedTensor> state = state_of(*a);
  const auto refused = [&](const std::vector<NamedTensor>& given, finetune::Objective& to, const std::string& words) {
    try {
      StateVisitor::restore(given, Device::cpu, [&](StateVisitor& v) { to.visit_state(v); });
      ADD_FAILURE() << "accepted, expected: " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::data);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  refused(state, *small("adjoint_matching", {"network.hidden=9"}), "expected f32 of shape");
  refused(state, *small("pi_ft", {}), "is missing");
  refused(state_of(*small("pi_ft", {})), *a, "is not of this training");
  refused({state.begin() + 1, state.end()}, *small("adjoint_matching", {}), "'" + state[0].first + "' is missing");
}

}  // namespace
}  // namespace costate::cli
