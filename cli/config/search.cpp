// Keys of methods of sampling time.
#include <costate/tensor/error.h>

#include <algorithm>

#include "config/fields.h"
#include "config/read.h"

namespace costate::cli {

void add_search_fields(std::vector<Field>& list, SampleConfig& c) {
  constexpr double any = std::numeric_limits<double>::infinity();
  list.push_back({"sample.methods",
                  &c.methods,
                  "Methods of sampling time that search for high rewards on the sde chain, beside plain samples: smc, twisted "
                  "sequential Monte Carlo for the tilted law; best_of_n, the best of several samples; noise_optimisation, "
                  "gradient ascent on the noise of each sample.",
                  {},
                  {"smc", "best_of_n", "noise_optimisation"}});
  list.push_back({"sample.smc.particles",
                  &c.smc.particles,
                  "Particles of a population, from which the samples are drawn by their weights; a population a class of "
                  "sample.labels; 0: as many as samples.",
                  {0, 1e7},
                  {}});
  list.push_back({"sample.smc.proposal",
                  &c.smc.proposal,
                  "base: the base's steps; guided: with the gradient of the reward at the estimate of x_1; tuned: the tuned "
                  "network's steps. Weights correct for all of them.",
                  {},
                  {"base", "guided", "tuned"}});
  list.push_back({"sample.smc.tempering",
                  &c.smc.tempering,
                  "How the reward at the estimate of x_1 enters the weights on the way: linear, more from step to step; none, "
                  "at the end alone, so that guided is base.",
                  {},
                  {"linear", "none"}});
  list.push_back({"sample.smc.resample_below",
                  &c.smc.resample_below,
                  "Systematic resampling when the effective share of the particles is below this; 0: never.",
                  {0, 1},
                  {}});
  list.push_back({"sample.best_of_n.n", &c.best_of_n.n, "Samples from which the best is kept.", {1, 1e6}, {}});
  list.push_back({"sample.noise.iterations", &c.noise.iterations, "noise_optimisation: updates of the noise.", {1, 1e6}, {}});
  list.push_back({"sample.noise.lr", &c.noise.lr, "noise_optimisation: learning rate of AdamW.", {0, any, true, false}, {}});
  list.push_back({"sample.noise.clip_norm",
                  &c.noise.clip_norm,
                  "noise_optimisation: limit of the norm of each sample's gradient; 0: none.",
                  {0, any},
                  {}});
  list.push_back({"sample.noise.gamma",
                  &c.noise.gamma,
                  "noise_optimisation: weight of the penalty on improbable noise; 0: none.",
                  {0, any},
                  {}});
  list.push_back({"sample.noise.vector",
                  &c.noise.vector,
                  "noise_optimisation: numbers of a vector whose mean and covariance the penalty looks at.",
                  {1, 1e6},
                  {}});
  list.push_back({"sample.noise.permutations",
                  &c.noise.permutations,
                  "noise_optimisation: random orders of the numbers of a sample's noise that the penalty averages over.",
                  {1, 1e6},
                  {}});
}

void check_search(const Config& c) {
  const SampleConfig plain, &s = c.sample;
  const auto uses = [&](const char* method) {
    return std::find(s.methods.begin(), s.methods.end(), method) != s.methods.end();
  };
  for (std::size_t i = 0; i < s.methods.size(); ++i)
    require(std::find(s.methods.begin(), s.methods.begin() + static_cast<std::ptrdiff_t>(i), s.methods[i]) ==
                s.methods.begin() + static_cast<std::ptrdiff_t>(i),
            "sample.methods: '", s.methods[i], "' is there twice");
  require(s.methods.empty() || c.reward.kind != "none",
          "sample.methods: there is no reward to search for (reward.kind is none), expected []");
  const auto only = [&](const char* method, bool given, const char* key) {
    require(uses(method) || !given, key, ": applies to ", method, " only, which is not in sample.methods");
  };
  only("smc",
       s.smc.particles != plain.smc.particles || s.smc.proposal != plain.smc.proposal ||
           s.smc.tempering != plain.smc.tempering || s.smc.resample_below != plain.smc.resample_below,
       "sample.smc");
  only("best_of_n", s.best_of_n.n != plain.best_of_n.n, "sample.best_of_n");
  const NoiseConfig &n = s.noise, &pn = plain.noise;
  only("noise_optimisation",
       n.iterations != pn.iterations || n.lr != pn.lr || n.clip_norm != pn.clip_norm || n.gamma != pn.gamma ||
           n.vector != pn.vector || n.permutations != pn.permutations,
       "sample.noise");
  require(n.gamma > 0 || (n.vector == pn.vector && n.permutations == pn.permutations),
          "sample.noise.vector and permutations: belong to the penalty, but sample.noise.gamma is 0");
}

}  // namespace costate::cli
