#include "distributed/ranks.h"

#include <costate/tensor/backend.h>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "commands.h"
#include "config/fields.h"
#include "distributed/mpi_communicator.h"
#include "objectives/objectives.h"
#include "run/directory.h"
#include "run/stop.h"
#include "stages/stages.h"

namespace costate::cli {

using finetune::communicator;

void together(const std::function<void()>& body) {
  if (!several_ranks()) return body();
  constexpr double fine = -1, stopped = -2;
  double found = fine;
  std::string text;
  try {
    body();
  } catch (const Error& e) {
    found = static_cast<double>(e.fault()), text = e.what();
  } catch (const Interrupted& e) {
    found = stopped, text = e.what();
  }
  const auto all = finetune::all_gather_alike({&found, 1});
  for (int r = 0; r < communicator().size(); ++r) {
    const double fault = all[static_cast<std::size_t>(r)][0];
    if (fault == fine) continue;
    if (fault == stopped) throw Interrupted(finetune::all_gather(text)[static_cast<std::size_t>(r)]);
    const bool mine = r == communicator().rank();
    throw AgreedError(static_cast<Fault>(static_cast<int>(fault)), mine ? text : sentence({"rank ", r, " found an error"}),
                      mine);
  }
}

void by_first_rank(const std::function<void()>& body) {
  together([&] {
    if (!first_rank()) return;
    const finetune::CommunicatorScope alone(nullptr);
    body();
  });
}

std::array<bool, 2> any_rank(std::array<bool, 2> own) {
  if (!several_ranks()) return own;
  const double numbers[] = {own[0] ? 1.0 : 0.0, own[1] ? 1.0 : 0.0};
  for (const auto& of_rank : finetune::all_gather_alike(numbers))
    for (std::size_t i = 0; i < own.size(); ++i) own[i] = own[i] || of_rank[i] != 0;
  return own;
}
bool any_rank(bool own) { return any_rank({own, false})[0]; }

void check_alike(const Config& config, const std::string& request) {
  if (!several_ranks()) return;
  const auto same = [](const std::string& what, const std::string& own, bool shown) {
    const std::vector<std::string> all = finetune::all_gather(own);
    for (std::size_t r = 1; r < all.size(); ++r) {
      if (all[r] == all[0]) continue;
      std::string text = "the processes differ in their " + what;
      text += shown ? ": rank 0 has " + all[0] + ", rank " + std::to_string(r) + " has " + all[r]
                    : ": that of rank " + std::to_string(r) + " is not that of rank 0";
      throw AgreedError(Fault::runtime, text + "; their numbers would differ", first_rank());
    }
  };
  same("version", std::string(COSTATE_VERSION " ") + COSTATE_COMPILER, true);
  same("kernels", kernels(Device::cpu).name, true);
  same("configuration", to_json(config).dump(), false);
  same("command", request, false);
}

void check_shared(const Config& c, const std::vector<Stage>& stages, int ranks) {
  if (ranks == 1) return;
  require(device_named(c.device, "device").kind == DeviceKind::cpu, "device: found ", c.device, ", but ", ranks,
          " processes compute on the cpu; a run on a device is one process");
  const auto cut = [&](const char* section, std::int64_t batch, std::int64_t micro_batch) {
    const std::int64_t pieces = micro_batch > 0 ? (batch + micro_batch - 1) / micro_batch : 1;
    require(pieces >= ranks, section, ".micro_batch: found ", micro_batch, ", but ", ranks,
            " processes share the micro-batches of an update, and ", batch, " samples are ", pieces, " of them; expected 1 to ",
            std::max<std::int64_t>(1, batch / ranks), micro_batch == 0 ? " (0 stands for the whole batch)" : "");
  };
  for (const Stage stage : stages) {
    if (stage == Stage::pretrain && c.network.kind != "pretrained" && c.control.problem == "none")
      cut("pretrain", c.pretrain.batch, c.pretrain.micro_batch);
    if (stage != Stage::finetune) continue;
    const FinetuneConfig& f = c.finetune;
    const Loop loop = objective(f.objective).loop;
    const auto refuse = [&](bool refused, std::string_view key, const auto& found, const char* why, const char* expected) {
      const std::string of = key == "finetune.objective" ? "" : " in " + f.objective;
      require(!refused, key, ": found ", found, ", which ", ranks, " processes cannot share", of, ": ", why, "; expected ", expected,
              ", or one process");
    };
    const char* const others = "adjoint_matching, discrete_adjoint, continuous_adjoint, or an objective of another loop";
    refuse(f.objective.starts_with("socm"), "finetune.objective", f.objective,
           "its path weights are divided by a mean over the whole batch", others);
    refuse(f.objective == "pi_ft" || f.objective == "stein", "finetune.objective", f.objective,
           "its value network is fitted to the whole batch", others);
    refuse(f.regression.replay.size > 0, "finetune.regression.replay.size", f.regression.replay.size,
           "a replay buffer keeps whole batches", "0");
    if (loop != Loop::policy_gradient) {
      cut("finetune", f.batch, f.micro_batch);
      continue;
    }
    const PolicyGradientConfig& p = f.policy_gradient;
    refuse(p.window.kind == "dynamic", "finetune.policy_gradient.window.kind", p.window.kind,
           "the samples that choose its part are no micro-batches", "another window");
    refuse(p.critic.skip, "finetune.policy_gradient.critic.skip", "true",
           "every process would ask for the rewards of all its estimates", "false");
    cut("finetune", f.batch / p.minibatches, f.micro_batch);
  }
}

int threads_of_rank() {
  cpu_set_t own;
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof own, &own) != 0) return 1;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::string key = std::string(host) + ":";
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &own)) key += std::to_string(i) + ",";
  const std::vector<std::string> all = finetune::all_gather(key);
  const auto alike = static_cast<int>(std::count(all.begin(), all.end(), key));
  return std::clamp(CPU_COUNT(&own) / std::max(alike, 1), 1, 1024);
}

void count_shared(Session& s, const std::function<void()>& body) {
  if (!several_ranks()) return body();
  const Evaluations before = s.counter->now();
  const std::int64_t flops_before = flops();
  body();
  const Evaluations e = s.counter->now();
  const std::int64_t own_flops = flops() - flops_before;
  const double own[] = {static_cast<double>(e.plain - before.plain), static_cast<double>(e.state - before.state),
                        static_cast<double>(e.parameters - before.parameters), static_cast<double>(e.rewards - before.rewards),
                        static_cast<double>(own_flops)};
  Evaluations sum = before;
  s.others_flops -= own_flops;
  for (const auto& of_rank : finetune::all_gather_alike(own)) {
    sum.plain += static_cast<std::int64_t>(of_rank[0]), sum.state += static_cast<std::int64_t>(of_rank[1]);
    sum.parameters += static_cast<std::int64_t>(of_rank[2]), sum.rewards += static_cast<std::int64_t>(of_rank[3]);
    s.others_flops += static_cast<std::int64_t>(of_rank[4]);
  }
  s.counter->restore(sum);
}

namespace {

// The sentence and code of what body throws; nothing when it returns.
struct Failure {
  std::string sentence;
  int code = 0;
  bool agreed = false, mine = true;
};

std::optional<Failure> failure_of(const std::function<void()>& body, int (*code_of)(Fault)) {
  try {
    body();
    return std::nullopt;
  } catch (const AgreedError& e) {
    return Failure{e.what(), code_of(e.fault()), true, e.mine()};
  } catch (const Error& e) {
    return Failure{e.what(), code_of(e.fault())};
  } catch (const Interrupted& e) {
    return Failure{e.what(), interrupted_code, true, first_rank()};
  } catch (const std::bad_alloc&) {
    return Failure{"the system has no more memory; costate plan CONFIG.json shows what a run needs", code_of(Fault::memory)};
  } catch (const std::exception& e) {
    return Failure{e.what(), 1};
  }
}

}  // namespace

int silent(int code) {
  std::this_thread::sleep_for(std::chrono::seconds(1));
  return code;
}

int run_by_ranks(const Launch& launch, const std::function<void()>& body,
                 const std::function<int(const std::string& sentence, int code)>& complain, int (*code_of)(Fault)) {
  if (launch.size == 1) return body(), 0;
  std::unique_ptr<MpiCommunicator> ranks;
  if (const auto f = failure_of([&] { ranks = std::make_unique<MpiCommunicator>(launch); }, code_of))
    return launch.rank == 0 ? complain(f->sentence, f->code) : silent(f->code);
  const auto failed = [&] {
    const finetune::CommunicatorScope scope(ranks.get());
    return failure_of(body, code_of);
  }();
  if (!failed) return 0;
  const std::string of_rank = sentence({"rank ", ranks->rank(), " of ", ranks->size(), ": "});
  if (failed->agreed) {
    if (failed->mine) complain((ranks->rank() == 0 ? "" : of_rank) + failed->sentence, failed->code);
    return failed->code;
  }
  // What all ranks find in the same numbers is said by the first; the others are then ended before they speak.
  if (ranks->rank() != 0) silent(failed->code);
  complain(of_rank + failed->sentence + "; this ends all ranks, and the checkpoints are as they were", failed->code);
  ranks->abort(failed->code);
}

}  // namespace costate::cli
