// Several processes ("ranks") that compute one thing: who they are, and messages between them. What they send each other is
// whole tensors on the cpu; collectives stand on that. A program that starts several sets the communicator of a thread:
//
//   const CommunicatorScope scope(mine);   // an implementation over MPI, sockets, threads, ...
//   tuning.step();                         // this rank's micro-batches; the sums of all
//
// Without one, there is a single rank, and nothing is sent. Parallel regions inside a rank send nothing.
#pragma once
#include <costate/tensor/tensor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace costate::finetune {

// A message under way. It holds the tensor for as long as it needs it.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // Returns when the message has been read from the tensor, or written to it. Throws Error(Fault::runtime) when it never will.
  virtual void wait() = 0;
};

// What gradients of micro-batches are added up in.
enum class Reduction : std::uint8_t {
  ordered,  // micro-batch by micro-batch: the same bits for any number of ranks
  fast,     // within each rank, then rank by rank: the bits are those of this number of ranks, with less to send
};

// Ranks 0 ... size - 1. Messages from one rank to another arrive in the order in which they were begun. Calls come from one
// thread at a time.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Begin to send all bytes of a tensor on the cpu to another rank, which must not change while they are under way, or to
  // write those that come from it, of the same number, over the tensor's.
  virtual std::unique_ptr<Transfer> send(int to, const Tensor& bytes) = 0;
  virtual std::unique_ptr<Transfer> receive(int from, const Tensor& into) = 0;

  Reduction reduction = Reduction::ordered;
  std::int64_t bytes_sent = 0;  // by this rank until now; implementations count
};

// The communicator of this thread while the scope stands; null: a single rank, whatever was outside. It must outlive the scope.
class CommunicatorScope {
 public:
  explicit CommunicatorScope(Communicator* communicator);
  ~CommunicatorScope();
  CommunicatorScope(const CommunicatorScope&) = delete;
  CommunicatorScope& operator=(const CommunicatorScope&) = delete;

 private:
  Communicator* outer_;
};

// Of this thread; a single rank without a scope.
Communicator& communicator();

// Collectives: every rank calls them, in the same order.

// The numbers of all ranks, in the order of the ranks; each may bring a count of its own.
std::vector<std::vector<double>> all_gather(std::span<const double> numbers);
// The same where every rank knows how many each brings: half the messages.
std::vector<std::vector<double>> all_gather(std::span<const double> numbers, const std::vector<std::int64_t>& counts);
// As many of each rank as of this one.
std::vector<std::vector<double>> all_gather_alike(std::span<const double> numbers);
// Text likewise.
std::vector<std::string> all_gather(const std::string& text);
// Returns on no rank before all have called it.
void barrier();
// Gives every rank the rows that others hold: pieces of the rows of `all` (rows, ...), on the cpu, which have `piece_rows` rows
// but for the last. Rank r holds the pieces of share(pieces, r).
void share_rows(const Tensor& all, std::int64_t piece_rows);

struct Share {
  std::int64_t first, end;
};
// Contiguous pieces of a rank, as equal as can be.
Share share(std::int64_t pieces, const Communicator& ranks);

}  // namespace costate::finetune
