// Ranks of MPI. All calls of MPI come from one thread of this object's, which looks after the messages under way while the
// others compute, and sleeps between looks: no processor is kept busy by waiting.
#pragma once
#include <costate/finetune/distributed/communicator.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "distributed/launch.h"
#include "distributed/mpi_table.h"

namespace costate::cli {

class MpiCommunicator final : public finetune::Communicator {
 public:
  // Starts MPI. Throws Error(Fault::runtime) when there is no plugin, or MPI does not start, or sees other processes than the
  // launcher did.
  explicit MpiCommunicator(const Launch& launch);
  ~MpiCommunicator() override;  // ends MPI, which waits for all ranks to do so
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<finetune::Transfer> send(int to, const Tensor& bytes) override;
  std::unique_ptr<finetune::Transfer> receive(int from, const Tensor& into) override;

  const std::string& library() const { return library_; }
  // Ends the processes of all ranks, this one last or not at all.
  [[noreturn]] void abort(int code);

 private:
  struct Message;
  class Waiting;
  std::unique_ptr<finetune::Transfer> begin(int peer, const Tensor& tensor, bool sends);
  void work(const Launch& launch);
  // Begins what is asked for and looks at what is under way; whether anything moved.
  bool look(std::deque<std::shared_ptr<Message>>& under_way);

  const MpiTable* table_ = nullptr;
  int rank_ = 0, size_ = 1;
  std::string library_, problem_;
  std::mutex mutex_;
  std::condition_variable asked_, moved_;
  std::deque<std::shared_ptr<Message>> queue_;
  bool started_ = false, ends_ = false;
  int abort_code_ = 0;
  std::thread thread_;
};

}  // namespace costate::cli
