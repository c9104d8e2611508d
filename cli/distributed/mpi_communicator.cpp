#include "distributed/mpi_communicator.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>

namespace costate::cli {
namespace {

namespace fs = std::filesystem;
constexpr const char* plugin_name = "libcostate_mpi.so";

// The file that the environment names, or the one beside the program or in the library folder next to it; "" without one.
std::string plugin_file() {
  if (const char* named = std::getenv("COSTATE_MPI_PLUGIN"); named && *named) return named;
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& path : {folder / plugin_name, folder / ".." / "lib" / plugin_name,
                               folder / ".." / COSTATE_LIBRARY_FOLDER / plugin_name})
    if (fs::exists(path, ignored)) return path.lexically_normal().string();
  return "";
}

const MpiTable& load(const Launch& launch) {
  const std::string several = sentence({launch.by, " started ", launch.size, " processes, but "});
  const std::string file = plugin_file();
  if (file.empty())
    fail(Fault::runtime, {several, "this program has no MPI: ", plugin_name, " lies neither beside it nor in the lib folder ",
                          "next to it; it is built where CMake finds MPI (COSTATE_MPI=ON requires it)"});
  // Open MPI's own plugins look for its symbols among the global ones.
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    const char* const why = dlerror();
    fail(Fault::runtime, {several, file, " could not be loaded: ", why ? why : "no reason was given"});
  }
  const auto entry = reinterpret_cast<MpiEntry>(dlsym(library, mpi_entry));
  const MpiTable* const table = entry ? entry() : nullptr;
  if (!table || table->version != mpi_table_version)
    fail(Fault::runtime, {several, file, " was built for another version of Costate"});
  return *table;
}

}  // namespace

struct MpiCommunicator::Message {
  Tensor tensor;
  int peer;
  bool sends;
  void* request = nullptr;
  bool done = false;         // these two under the mutex
  std::string problem = "";
};

class MpiCommunicator::Waiting final : public finetune::Transfer {
 public:
  Waiting(MpiCommunicator& owner, std::shared_ptr<Message> message) : owner_(owner), message_(std::move(message)) {}
  void wait() override {
    std::unique_lock lock(owner_.mutex_);
    owner_.moved_.wait(lock, [&] { return message_->done; });
    if (message_->problem.empty()) return;
    fail(Fault::runtime, {message_->sends ? "a message to" : "a message from", " rank ", message_->peer, " of ", owner_.size_,
                          " was lost: ", message_->problem});
  }

 private:
  MpiCommunicator& owner_;
  std::shared_ptr<Message> message_;
};

MpiCommunicator::MpiCommunicator(const Launch& launch) : table_(&load(launch)) {
  thread_ = std::thread([this, &launch] { work(launch); });
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [&] { return started_; });
  if (problem_.empty()) return;
  lock.unlock();
  thread_.join();
  fail(Fault::runtime, {launch.by, " started ", launch.size, " processes, but ", problem_});
}

MpiCommunicator::~MpiCommunicator() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  asked_.notify_one();
  thread_.join();
}

void MpiCommunicator::abort(int code) {
  {
    const std::lock_guard lock(mutex_);
    abort_code_ = code > 0 ? code : 1;
  }
  asked_.notify_one();
  thread_.join();
  std::_Exit(code);
}

std::unique_ptr<finetune::Transfer> MpiCommunicator::begin(int peer, const Tensor& tensor, bool sends) {
  require(peer >= 0 && peer < size_ && peer != rank_, "communicator: a message of rank ", rank_, " of ", size_, " names rank ",
          peer);
  require(tensor.defined() && tensor.device() == Device::cpu, "communicator: messages are tensors on the cpu");
  require(tensor.bytes() <= std::numeric_limits<int>::max(), "communicator: a message of ", tensor.bytes(),
          " bytes; at most 2^31 - 1 are sent at once");
  auto message = std::make_shared<Message>(Message{tensor, peer, sends});
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(message);
  }
  asked_.notify_one();
  if (sends) bytes_sent += tensor.bytes();
  return std::make_unique<Waiting>(*this, std::move(message));
}

std::unique_ptr<finetune::Transfer> MpiCommunicator::send(int to, const Tensor& bytes) { return begin(to, bytes, true); }
std::unique_ptr<finetune::Transfer> MpiCommunicator::receive(int from, const Tensor& into) { return begin(from, into, false); }

bool MpiCommunicator::look(std::deque<std::shared_ptr<Message>>& under_way) {
  std::deque<std::shared_ptr<Message>> begun, ended;
  {
    const std::lock_guard lock(mutex_);
    begun.swap(queue_);
  }
  const bool asked = !begun.empty();
  const auto end = [&](const std::shared_ptr<Message>& m, const char* why) {
    const std::lock_guard lock(mutex_);
    m->problem = why ? why : "", m->done = true;
    moved_.notify_all();
  };
  for (auto& m : begun) {
    const int bytes = static_cast<int>(m->tensor.bytes());
    const char* const why = m->sends ? table_->send(m->tensor.raw(), bytes, m->peer, &m->request)
                                     : table_->receive(m->tensor.raw_mutable(), bytes, m->peer, &m->request);
    if (why) end(m, why);
    else under_way.push_back(std::move(m));
  }
  const std::size_t before = under_way.size();
  std::erase_if(under_way, [&](const std::shared_ptr<Message>& m) {
    int done = 0;
    const char* const why = table_->test(&m->request, &done);
    if (done || why) end(m, why);
    return done || why;
  });
  return asked || under_way.size() < before;
}

void MpiCommunicator::work(const Launch& launch) {
  {
    std::string why;
    const char* const problem = table_->start(&rank_, &size_);
    if (problem) why = problem;
    else library_ = table_->library();
    if (!problem && size_ != launch.size) {
      why = sentence({library_, " sees ", size_,
                      launch.by == "srun" ? "; try srun --mpi=pmix, or the --mpi that it was built for" : ""});
      table_->finish();
    }
    const std::lock_guard lock(mutex_);
    problem_ = why, started_ = true;
    moved_.notify_all();
    if (!problem_.empty()) return;
  }
  using Clock = std::chrono::steady_clock;
  std::deque<std::shared_ptr<Message>> under_way;
  Clock::time_point last = Clock::now();
  for (;;) {
    if (look(under_way)) last = Clock::now();
    std::unique_lock lock(mutex_);
    if (abort_code_ != 0) {
      lock.unlock();
      table_->abort(abort_code_);
      return;
    }
    if (!queue_.empty()) continue;
    if (under_way.empty()) {
      if (ends_) break;
      asked_.wait(lock, [&] { return !queue_.empty() || ends_ || abort_code_ != 0; });
      continue;
    }
    // Looks follow each other quickly while messages move, and by and by more slowly, at most a millisecond apart.
    const auto idle = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - last);
    asked_.wait_for(lock, std::clamp(idle / 8, std::chrono::microseconds(10), std::chrono::microseconds(1000)));
  }
  table_->finish();
}

}  // namespace costate::cli
