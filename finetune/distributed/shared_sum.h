// The gradient of a batch whose micro-batches ("pieces") are dealt to ranks: piece i belongs to rank i mod R, and the sum
//   ((g_0 + g_1) + g_2) + ...
// runs in the order of the pieces, element by element, whatever R is: the bits are those of one process that takes the
// micro-batches one after the other.
//
// The parameters' elements are cut into buckets of at most a MiB, bucket b being added up by rank b mod R. When a rank has a
// piece's gradient it begins to send the buckets to those who add them, and computes its next piece meanwhile; what has arrived
// is added when that one is done. After the last piece every rank sends the buckets that it added to all others.
//
// A rank with m of the pieces sends, of P bytes of parameters,
//   ordered   (m + 1) P (R - 1)/R,    of which (m - 1) P (R - 1)/R while it computes,
//   fast      2 P (R - 1)/R,          which is what a ring all-reduce sends,
// and holds P for what it sends and P (R - 1)/R for what arrives: with one piece a rank both are the same. Reduction::fast adds
// up a rank's own pieces first.
#pragma once
#include <costate/finetune/distributed/communicator.h>
#include <costate/finetune/gradients.h>

#include <functional>
#include <optional>

namespace costate::finetune {

class SharedSum {
 public:
  // `what` names the training in errors. Throws Error(argument) where there are fewer pieces than ranks, which would leave some
  // without work.
  SharedSum(std::string what, std::int64_t pieces);
  // The same where some may be without work: gradients are those of these parameters.
  SharedSum(std::string what, std::int64_t pieces, const std::vector<Tensor>& parameters);

  bool mine(std::int64_t piece) const { return piece % size_ == rank_; }
  // Of each of this rank's pieces, in their order: the gradient, and numbers that all ranks will see (as many for each piece).
  void add(std::int64_t piece, Gradients gradients, std::vector<double> numbers = {});
  // The sum of all pieces, on every rank; calls `numbers_of` for each piece in order.
  Gradients finish(const std::function<void(std::span<const double>)>& numbers_of = nullptr);

 private:
  struct Bucket {
    std::int64_t first, count;  // elements
    int owner;
  };
  void send_round(const Gradients* own);  // begins a round of pieces, one a rank
  void fold_round();                      // waits for it, and adds
  void lay_out(const std::vector<Tensor>& parameters);  // cuts them into buckets
  void pack(const Gradients& g);
  void share_sum();
  Gradients unpack() const;

  std::string what_;
  Communicator& ranks_;
  std::int64_t pieces_, size_, rank_, rounds_ = 0, next_ = 0;
  Gradients sum_;                // single ranks, and what `fast` adds up by itself
  std::vector<double> numbers_;  // of own pieces, their loss first, one piece after the other
  std::size_t numbers_each_ = 0;
  // Of several ranks:
  std::vector<Shape> shapes_;    // of the parameters
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;  // that the gradients are on
  std::vector<Bucket> buckets_;
  Tensor own_;                   // this round's gradient, all elements
  std::vector<Tensor> others_;   // by rank: the buckets of this rank, one after the other; undefined: that rank has no piece
  Tensor total_;                 // of the buckets of this rank
  std::vector<std::unique_ptr<Transfer>> transfers_;
  bool under_way_ = false, own_takes_part_ = false;
};

}  // namespace costate::finetune
