// Two trainings, a sampler and a writer of checkpoints at once, all on one base network: each does what it does alone, bit for
// bit. Under the thread sanitizer (preset tsan), that nothing is read while it is written.
#include <gtest/gtest.h>

#include <costate/finetune/training_state.h>
#include <costate/nn/save.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/file.h>
#include <costate/tensor/folder.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/safetensors_stream.h>

#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <thread>

#include "faults/trainings.h"

namespace costate::faults {
namespace {

namespace fs = std::filesystem;
using finetune::StateVisitor;

constexpr int updates = 8;

// States are handed over as they are, sharing their storage with the training that goes on.
class Writer {
 public:
  explicit Writer(std::string folder) : folder_(std::move(folder)), thread_([this] { write(); }) {}
  ~Writer() { finish(); }
  void take(std::string name, std::vector<NamedTensor> state) {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(std::move(name), std::move(state));
    wake_.notify_one();
  }
  void finish() {
    if (!thread_.joinable()) return;
    take("", {});
    thread_.join();
  }

 private:
  void write() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !queue_.empty(); });
      const auto [name, state] = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      if (name.empty()) return;
      write_folder_atomically(folder_ + "/" + name,
                              {{"state.safetensors", [&s = state](const WriteBytes& w) { write_safetensors(w, s); }}});
    }
  }
  std::string folder_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::string, std::vector<NamedTensor>>> queue_;
  std::thread thread_;
};

std::vector<NamedTensor> state_of(finetune::Objective& o) {
  return StateVisitor::collect([&](StateVisitor& v) { o.visit_state(v); });
}

// The state after every update as bytes, through `writer` or, null, here.
std::vector<std::vector<std::byte>> train(const std::string& name, const nn::Network& base, const std::string& prefix,
                                          Writer* writer) {
  set_threads(2);
  std::vector<std::vector<std::byte>> states;
  const auto training = small_training(name, base, 70);  // several chunks
  for (int i = 0; i < updates; ++i) {
    training->step();
    if (writer) writer->take(prefix + std::to_string(i), state_of(*training));
    else states.push_back(safetensors_bytes(state_of(*training), {{"format", "pt"}}));
  }
  set_threads(1);
  return states;
}
std::vector<std::byte> sample(const nn::Network& base) {
  std::vector<NamedTensor> out;
  for (int i = 0; i < updates; ++i)
    out.emplace_back(std::to_string(i), sde::sample(finetune::field_of(base), small_problem(base).chain, {2}, 70, Tensor(),
                                                    {3, static_cast<std::uint64_t>(70 * i)}));
  return safetensors_bytes(out);
}

TEST(Concurrent, TwoTrainingsASamplerAndAWriterDisturbNobody) {
  std::string folder = (fs::temp_directory_path() / "costate-concurrent-XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const nn::Network base = small_network(1);
  const std::string one = small_trainings[0], other = small_trainings[1];
  const auto alone_one = train(one, base, "", nullptr), alone_other = train(other, base, "", nullptr);
  const std::vector<std::byte> alone_samples = sample(base);
  std::vector<std::byte> samples;
  {
    Writer writer(folder);
    std::thread first([&] { train(one, base, "one_", &writer); }), second([&] { train(other, base, "other_", &writer); }),
        sampler([&] { samples = sample(base); });
    first.join(), second.join(), sampler.join();
    writer.finish();
  }
  EXPECT_EQ(samples, alone_samples);
  for (int i = 0; i < updates; ++i) {
    const std::string n = std::to_string(i);
    EXPECT_NO_THROW(check_folder(folder + "/one_" + n));
    EXPECT_EQ(read_file(folder + "/one_" + n + "/state.safetensors"), alone_one[static_cast<std::size_t>(i)]) << i;
    EXPECT_EQ(read_file(folder + "/other_" + n + "/state.safetensors"), alone_other[static_cast<std::size_t>(i)]) << i;
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace costate::faults
