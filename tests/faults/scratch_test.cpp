// States that an adjoint puts on disk while the system fails: the gradient has its bits or is an error, and no file is left.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/exponential.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>

#include "faults/system_calls.h"

namespace costate::sde {
namespace {

namespace fs = std::filesystem;
using faults::Call;
using faults::Scope;
using faults::Verdict;

class Scratch : public ::testing::Test {
 protected:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "costate-faults-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    folder_ = pattern;
    sound_ = bits_of(descend());
  }
  ~Scratch() override {
    EXPECT_TRUE(fs::is_empty(folder_));
    fs::remove_all(folder_);
  }

  // The gradient of |x_K|^2 of a chain of 12 steps, whose states go to disk every third step.
  Gradient descend() const {
    const Field drift = [](const Var& x, const Var&, const Tensor&) { return tanh(x); };
    const Process process = chain_process({drift, [drift](Tape&, std::vector<Var>&) { return drift; }}, exact_memoryless({}, uniform_grid(12)), Tensor(), {7, 3});
    AdjointOptions o;
    o.method = AdjointMethod::two_level, o.segment = 3, o.scratch = folder_;
    return gradient(process, initial_noise({2}, 5, {7, 0}), [](const Tensor& x) { return affine(Var(x), 2, 0).value(); }, o);
  }
  static std::vector<double> bits_of(const Gradient& g) { return g.initial.to_doubles(); }

  std::string folder_;
  std::vector<double> sound_;
};

TEST_F(Scratch, EveryFailingCallIsAnErrorAndLeavesNothing) {
  std::vector<faults::Record> calls;
  {
    const Scope scope(folder_, {});
    EXPECT_EQ(bits_of(descend()), sound_);
    calls = scope.calls();
  }
  std::map<Call, int> made;
  for (const faults::Record& r : calls) ++made[r.call];
  EXPECT_GE(made[Call::pwrite], 3);
  EXPECT_EQ(made[Call::pread], made[Call::pwrite]);
  EXPECT_EQ(made[Call::open], 1);
  for (const int reason : {ENOSPC, EIO})
    for (std::size_t fails = 0; fails < calls.size(); ++fails) {
      const std::string what = std::string(faults::name(calls[fails].call)) + " " + std::to_string(fails) + ": " + std::strerror(reason);
      const Scope scope(folder_, [&](Call, std::size_t i) { return Verdict{.reason = i == fails ? reason : 0}; });
      // The file has no name any more when it is closed, and one that keeps its name is no reason to stop.
      const bool harmless = calls[fails].call == Call::close || calls[fails].call == Call::unlink;
      try {
        EXPECT_EQ(bits_of(descend()), sound_) << what;
        EXPECT_TRUE(harmless) << what;
      } catch (const Error& e) {
        EXPECT_EQ(e.fault(), Fault::io) << what;
        EXPECT_NE(std::string(e.what()).find(folder_), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find(std::strerror(reason)), std::string::npos) << e.what();
        EXPECT_FALSE(harmless) << what;
      }
      for (const auto& left : fs::directory_iterator(folder_)) fs::remove(left.path());
    }
}

TEST_F(Scratch, ShortAndInterruptedCallsAreMadeAgain) {
  for (const std::size_t most : {1, 7, 1000}) {
    int interrupted = 0;
    bool again = false;  // every other call is interrupted
    const Scope scope(folder_, [&](Call call, std::size_t) {
      again = (call == Call::pread || call == Call::pwrite) && !again;
      interrupted += again;
      return Verdict{.reason = again ? EINTR : 0, .most = most};
    });
    EXPECT_EQ(bits_of(descend()), sound_) << most;
    EXPECT_GE(interrupted, 6) << most;
  }
}

TEST_F(Scratch, AFileThatEndsEarlyIsAnError) {
  const Scope scope(folder_, [](Call call, std::size_t) { return Verdict{.most = call == Call::pread ? 0 : ~std::size_t{0}}; });
  EXPECT_THROW(descend(), Error);
}

}  // namespace
}  // namespace costate::sde
