// A host that embeds Costate: a simulation without a window that goes on at its fixed rate while one of its threads fine-tunes
// the model that throws its balls, by where they come down in the simulation itself, and another one draws throws from the
// newest copy of the model. Threads, memory, log and the word to stop are the host's.
//
//   embed [UPDATES]     ends after so many updates (200), in the middle of the next one
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/finetune/training.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/parallel.h>

#include <atomic>
#include <chrono>
#include <cstdio>

#include "house.h"
#include "world.h"

namespace {

using namespace costate;
using namespace embed;
using Clock = std::chrono::steady_clock;

// How people throw: two habits, neither of which reaches the basket often.
data::Dataset throws_of_people() {
  data::Dataset d;
  d.count = 2000, d.item_shape = {2}, d.description = "throws (vx, vy) in m/s";
  nn::Init noise(3);
  const Tensor e = noise.normal({d.count, 2}, 1.0);
  for (std::int64_t i = 0; i < d.count; ++i) {
    const bool high = i % 3 == 0;
    d.values.push_back((high ? 4.0f : 6.0f) + 0.9f * e.values<float>()[2 * i]);
    d.values.push_back((high ? 7.0f : 4.0f) + 0.9f * e.values<float>()[2 * i + 1]);
  }
  return data::standardised(d);
}

// Rows of a model to throws.
std::vector<float> throws(const data::Dataset& units, const Tensor& x) { return data::original(units, x.values<float>()); }

double share_of_hits(const World& world, const std::vector<float>& v) {
  int hits = 0;
  for (std::size_t i = 0; i < v.size(); i += 2) hits += miss(v[i], v[i + 1], world.wind()) < reach;
  return 2.0 * hits / static_cast<double>(v.size());
}
double share_of_hits(const std::vector<bool>& landed, std::size_t first, std::size_t last) {
  return static_cast<double>(std::count(landed.begin() + static_cast<std::ptrdiff_t>(first),
                                        landed.begin() + static_cast<std::ptrdiff_t>(last), true)) /
         static_cast<double>(std::max<std::size_t>(1, last - first));
}

}  // namespace

int main(int argc, char** argv) {
  const int wanted = argc > 1 ? std::atoi(argv[1]) : 200;

  // What the host owns. The pantry outlives all tensors.
  Pantry pantry(std::size_t{64} << 20);
  Journal journal;
  Crew crew(2);
  World world;
  std::stop_source stop;
  const auto lent = [&] {
    return Hooks{.executor = &crew,
                 .allocator = &pantry,
                 .stop = stop.get_token(),
                 .log = [&journal](Severity, std::string_view text) { journal.write(std::string(text)); }};
  };
  {
    const HookScope scope(lent());

    // The base model.
    const data::Dataset units = throws_of_people();
    nn::Init init(1);
    finetune::FlowMatching pretraining(
        nn::make_velocity_mlp({.dim = 2, .hidden = 48, .depth = 2}, init), units, false,
        {.batch = 128, .lr = {.peak = 4e-3}, .ema_decay = 0.99});
    finetune::train(pretraining, 400);
    const nn::Network base = pretraining.average();
    const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(12));

    // The reward is what the simulation says, without any gradient: a flight in the world's wind for every throw. What gets
    // lost among the lamps has none, and is left out.
    finetune::Reward reward;
    reward.name = "the basket";
    reward.on_failure = finetune::Reward::Policy::skip;
    reward.black_box = [&](const Tensor& x) {
      const std::vector<float> v = throws(units, x);
      std::vector<float> values(v.size() / 2);
      parallel_for(static_cast<std::int64_t>(values.size()), 16, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const double m = miss(v[2 * i], v[2 * i + 1], world.wind());
          values[i] = static_cast<float>(m > 4 ? -4 : -m);
        }
      });
      return Tensor::from(values, {x.extent(0)});
    };

    Latest<std::shared_ptr<const nn::Network>> newest;  // a value that nobody writes to any more
    newest.put(std::make_shared<const nn::Network>(base));
    std::atomic<int> updates{0};
    Latest<std::deque<std::pair<float, float>>> throws_to_come;

    std::jthread trainer([&] {
      const HookScope own(lent());
      set_threads(2);
      try {
        finetune::PolicyGradientOptions options;
        options.batch = 128, options.seed = 4;
        options.learner = {.lr = {.peak = 3e-3}, .ema_decay = 0.9};
        finetune::PolicyGradient tuning("throwing", {.chain = chain, .base = finetune::field_of(base), .sample_shape = {2},
                                                     .reward = reward, .reward_multiplier = 4.0}, base, options);
        finetune::train(tuning, 1'000'000, [&](std::int64_t done, const finetune::Metrics&) {
          if (done > wanted) return;
          newest.put(std::make_shared<const nn::Network>(tuning.average()));
          updates = static_cast<int>(done);
        });
      } catch (const Error& e) {
        journal.write(std::string("training ended: ") + e.what());
        updates = wanted;
      }
    });

    std::jthread thrower([&] {
      const HookScope own(lent());
      try {
        for (std::uint64_t first = 0;; first += 16) {
          const nn::Network network = *newest.get();
          const Tensor x = sde::sample(finetune::field_of(network), chain, {2}, 16, {}, {.seed = 5, .first_sample = first});
          const std::vector<float> v = throws(units, x);
          std::deque<std::pair<float, float>> next;
          for (std::size_t i = 0; i < v.size(); i += 2) next.emplace_back(v[i], v[i + 1]);
          throws_to_come.put(std::move(next));
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      } catch (const Cancelled&) {
      }
    });

    // The simulation: a tick every 1/120 s, a throw every sixth tick.
    const auto period = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(tick));
    auto next_tick = Clock::now();
    std::int64_t late = 0;
    std::deque<std::pair<float, float>> hand;
    while (updates < wanted) {
      if (world.ticks() % 6 == 0) {
        if (hand.empty()) hand = throws_to_come.get();
        if (!hand.empty()) {
          world.throw_ball(hand.front().first, hand.front().second);
          hand.pop_front();
        }
      }
      world.advance();
      next_tick += period;
      late += Clock::now() > next_tick;
      std::this_thread::sleep_until(next_tick);
    }
    const auto asked = Clock::now();
    stop.request_stop();
    trainer.join(), thrower.join();
    const double ended = std::chrono::duration<double, std::milli>(Clock::now() - asked).count();

    // What came of it. The word to stop was given; the numbers below are drawn under another one, which is not.
    const std::stop_source never;
    const HookScope calm({.stop = never.get_token()});
    const auto hits = [&](const nn::Network& network) {
      return share_of_hits(world, throws(units, sde::sample(finetune::field_of(network), chain, {2}, 2000, {}, {.seed = 6})));
    };
    const std::size_t landed = world.landed().size();
    std::printf("%lld ticks at 120 Hz, %lld late; %zu balls came down, hits %.2f in the first quarter, %.2f in the last\n",
                static_cast<long long>(world.ticks()), static_cast<long long>(late), landed,
                share_of_hits(world.landed(), 0, landed / 4), share_of_hits(world.landed(), landed - landed / 4, landed));
    std::printf("%d updates; trainer and thrower ended %.1f ms after the word\n", updates.load(), ended);
    std::printf("of 2000 throws the base hits %.2f, the tuned model %.2f\n", hits(base), hits(*newest.get()));
  }
  std::printf("memory: at most %.2f MB, %zu bytes left\n", static_cast<double>(pantry.most()) / 1e6, pantry.out());
  const std::vector<std::string> said = journal.lines();
  std::printf("journal: %zu sentences, first: %s\n", said.size(), said.empty() ? "" : said[0].c_str());
  return pantry.out() == 0 ? 0 : 1;
}
