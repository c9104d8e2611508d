// Memory that runs out: whichever allocation of a training of three updates and a checkpoint is refused, once or from then on,
// an exception says so; nothing leaks, the file is the old one or the new one, and the next training has its bits.
#include <gtest/gtest.h>

#include <costate/nn/save.h>
#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <costate/tensor/parallel.h>

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <iostream>
#include <thread>

#include "faults/allocations.h"
#include "faults/trainings.h"

namespace costate::faults {
namespace {

namespace fs = std::filesystem;

class OutOfMemory : public ::testing::Test {
 protected:
  OutOfMemory() {
    std::string pattern = (fs::temp_directory_path() / "costate-memory-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    folder_ = pattern, path_ = folder_ + "/tuned.safetensors";
  }
  ~OutOfMemory() override {
    set_threads(1);
    fs::remove_all(folder_);
  }

  void train(const std::string& name) {
    memory::trim();  // every block is asked of the system anew
    const nn::Network base = small_network(1);
    const auto training = small_training(name, base);
    for (int i = 0; i < 3; ++i) training->step();
    nn::save(path_, training->average());
  }
  // Every allocation, in both ways.
  void sweep(const std::string& name) {
    SCOPED_TRACE(name);
    // On threads of their own, which take what they keep for the next time with them: nothing is left to hide a leak.
    const auto alone = [&](const auto& body) { std::thread(body).join(); };
    alone([&] { train(name); });  // tables that are made once
    const std::vector<std::byte> right = read_file(path_);
    std::int64_t count = 0;
    alone([&] {
      const std::int64_t before = allocations().count;
      train(name);
      count = allocations().count - before;
    });
    const std::int64_t live = allocations().live_bytes;
    ASSERT_EQ(read_file(path_), right);
    ASSERT_GT(count, 300);
    std::int64_t refused = 0;
    for (std::int64_t n = 0; n < count; ++n)
      for (const bool on : {false, true}) {
        bool thrown = false, other = false;
        std::int64_t tensors = 0;
        alone([&] {
          const RefusedMemory scope(n, on);
          try {
            train(name);
          } catch (const std::bad_alloc&) {
            thrown = true;
          } catch (const Error& e) {
            thrown = true, other = e.fault() != Fault::memory;
          } catch (...) {
            other = true;
          }
          tensors = memory::live().total;
        });
        ASSERT_FALSE(other) << "allocation " << n << ", " << on;
        refused += thrown;  // a list that a thread keeps may do without
        ASSERT_EQ(tensors, 0) << "allocation " << n << ", " << on;
        ASSERT_EQ(allocations().live_bytes, live) << "allocation " << n << ", " << on;
        ASSERT_EQ(read_file(path_), right) << n;  // the old one and the new one are the same
        ASSERT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1) << n;
      }
    EXPECT_GT(refused, 2 * count * 9 / 10);
    alone([&] { train(name); });
    EXPECT_EQ(read_file(path_), right);
    std::cout << name << ": " << count << " allocations, " << refused << " refused trainings\n";
  }
  std::string folder_, path_;
};

TEST_F(OutOfMemory, EveryAllocationOfATraining) {
  for (const std::string& name : small_trainings) sweep(name);
}

// With a pool: what a worker is refused is thrown to the caller, and the pool serves on.
TEST_F(OutOfMemory, AWorkerThatIsRefusedMemoryThrows) {
  set_threads(2);
  std::atomic<int> done{0};
  const auto work = [&](std::int64_t) { Tensor::zeros({1000}), ++done; };
  parallel(8, work);
  EXPECT_EQ(done, 8);
  const std::int64_t tensors = memory::live().total;
  int thrown = 0;
  for (std::int64_t n = 0; n < 20; ++n) {
    const RefusedMemory scope(n, true);
    try {
      parallel(8, [&](std::int64_t i) { Tensor::zeros({1000 + 300 * n + 100 * i}); });
    } catch (const std::bad_alloc&) {
      ++thrown;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::memory);
      ++thrown;
    }
  }
  EXPECT_GT(thrown, 0);
  EXPECT_EQ(memory::live().total, tensors);
  done = 0;
  parallel(8, work);
  EXPECT_EQ(done, 8);
}

}  // namespace
}  // namespace costate::faults
