// How much faster several processes are than one, on the UNet of examples/glyphs_unet.json: flow matching and adjoint matching,
// with a digest of the parameters, which must not depend on the number of processes. scripts/scaling.sh does the same with the
// program itself.
//
//   bench_ranks [ITERATIONS]                 one process
//   mpirun -np 2 bench_ranks [ITERATIONS]    two
#include <costate/finetune/data/glyphs.h>
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/reward/analytic.h>
#include <costate/nn/unet.h>
#include <costate/tensor/parallel.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "distributed/mpi_communicator.h"

using namespace costate;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::uint64_t digest(const nn::Network& network) {
  std::uint64_t h = 1469598103934665603u;  // FNV-1a over words
  for (const Tensor& t : nn::parameters(network))
    for (const float v : t.values<float>()) {
      std::uint32_t bits;
      std::memcpy(&bits, &v, sizeof bits);
      h = (h ^ bits) * 1099511628211u;
    }
  return h;
}

nn::Network unet() {
  nn::UNetOptions o;
  o.in_channels = o.out_channels = 1;
  o.block_out_channels = {16, 32, 64};
  o.down_block_types = {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"};
  o.up_block_types = {"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"};
  o.layers_per_block = 1, o.norm_num_groups = 8, o.attention_head_dim = std::nullopt;
  nn::Init init(3);
  return nn::Network(nn::make_unet(o, init));
}

// Seconds of each of so many updates, after a first one that is not counted.
template <class Step>
void report(const char* what, int iterations, const nn::Network& network, const Step& step) {
  finetune::Communicator& ranks = finetune::communicator();
  step();
  finetune::barrier();
  const std::int64_t sent = ranks.bytes_sent;
  const double start = now();
  for (int i = 0; i < iterations; ++i) step();
  finetune::barrier();
  const double seconds = (now() - start) / iterations;
  if (ranks.rank() == 0)
    std::printf("%-16s %d ranks  %8.4f s an update  %12lld bytes sent by rank 0 an update  digest %016llx\n", what,
                ranks.size(), seconds, static_cast<long long>((ranks.bytes_sent - sent) / iterations),
                static_cast<unsigned long long>(digest(network)));
}

}  // namespace

int main(int argc, char** argv) try {
  const int iterations = argc > 1 ? std::atoi(argv[1]) : 4;
  const cli::Launch launch = cli::launch_of_environment();
  std::unique_ptr<cli::MpiCommunicator> mpi;
  if (launch.size > 1) mpi = std::make_unique<cli::MpiCommunicator>(launch);
  const finetune::CommunicatorScope scope(mpi.get());
  set_threads(1);
  const data::Dataset glyphs = data::glyphs({.resolution = 12}, 1, 0, 500);
  nn::Network network = unet();
  if (finetune::communicator().rank() == 0) {
    std::int64_t bytes = 0;
    for (const Tensor& t : nn::parameters(network)) bytes += t.bytes();
    std::printf("UNet of %lld bytes of parameters\n", static_cast<long long>(bytes));
  }
  finetune::FlowMatching pretraining(network, glyphs, false, {.batch = 64, .micro_batch = 16});
  report("flow matching", iterations, pretraining.network(), [&] { pretraining.step(); });
  const nn::Network base = nn::clone(pretraining.network());
  finetune::ValueGradientOptions o{.batch = 32, .micro_batch = 8};
  o.loss_space = finetune::ValueGradientOptions::LossSpace::velocity;
  finetune::ControlProblem problem{.chain = sde::exact_memoryless({}, sde::uniform_grid(16)),
                                   .base = finetune::field_of(base),
                                   .sample_shape = {12, 12, 1},
                                   .reward = finetune::linear_reward(std::vector<double>(144, 0.01))};
  finetune::ValueGradientRegression tuning(std::move(problem), nn::clone(base), o);
  report("adjoint matching", iterations, tuning.network(), [&] { tuning.step(); });
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_ranks: %s\n", e.what());
  return 1;
}
