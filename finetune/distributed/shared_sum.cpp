#include <costate/finetune/distributed/shared_sum.h>

#include <costate/autograd/ops.h>
#include <costate/tensor/hooks.h>

#include <algorithm>

namespace costate::finetune {
namespace {

constexpr std::int64_t largest_bucket = std::int64_t{1} << 20;  // bytes

}  // namespace

SharedSum::SharedSum(std::string what, std::int64_t pieces)
    : what_(std::move(what)), ranks_(communicator()), pieces_(pieces), size_(ranks_.size()), rank_(ranks_.rank()) {
  require(pieces_ >= size_, what_, ": ", size_, " processes share the micro-batches of an update, but it has ", pieces_,
          "; choose a micro_batch of at most 1/", size_, " of the batch, or fewer processes");
}

SharedSum::SharedSum(std::string what, std::int64_t pieces, const std::vector<Tensor>& parameters)
    : what_(std::move(what)), ranks_(communicator()), pieces_(pieces), size_(ranks_.size()), rank_(ranks_.rank()) {
  require(pieces_ >= 1, what_, ": a gradient of ", pieces_, " micro-batches");
  if (size_ > 1) lay_out(parameters);
}

void SharedSum::add(std::int64_t piece, Gradients g, std::vector<double> numbers) {
  require(mine(piece) && piece / size_ == next_, what_, ": piece ", piece, " is not the next one of rank ", rank_);
  ++next_;
  numbers.insert(numbers.begin(), g.loss);
  numbers_each_ = numbers.size();
  numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
  if (size_ == 1 || ranks_.reduction == Reduction::fast) return finetune::add(sum_, std::move(g));
  if (under_way_) fold_round();
  send_round(&g);
}

void SharedSum::lay_out(const std::vector<Tensor>& parameters) {
  const memory::TagScope scope(memory::Tag::gradients);
  require(!parameters.empty(), what_, ": there are no parameters to be trained");
  dtype_ = parameters[0].dtype(), device_ = parameters[0].device();
  std::int64_t elements = 0;
  for (const Tensor& t : parameters) {
    require(t.dtype() == dtype_, what_, ": parameters of ", dtype_, " and ", t.dtype(),
            "; several processes add up gradients of one type");
    shapes_.push_back(t.shape());
    elements += t.numel();
  }
  const std::int64_t most = largest_bucket / size_of(dtype_),
                     count = std::max<std::int64_t>(1, (elements + most * size_ - 1) / (most * size_)) * size_;  // as many each
  std::int64_t mine = 0;
  for (std::int64_t b = 0; b < count; ++b) {
    const std::int64_t first = elements * b / count, end = elements * (b + 1) / count;
    buckets_.push_back({first, end - first, static_cast<int>(b % size_)});
    if (b % size_ == rank_) mine += end - first;
  }
  total_ = Tensor::empty({mine}, dtype_);
  own_ = Tensor::empty({elements}, dtype_);
}

void SharedSum::pack(const Gradients& g) {
  if (shapes_.empty()) lay_out(g.parameters);
  std::int64_t at = 0;
  for (const Tensor& t : g.parameters) {
    own_.slice(at, t.numel()).copy_from(t.to(Device::cpu).reshape({t.numel()}));
    at += t.numel();
  }
}

void SharedSum::send_round(const Gradients* own) {
  own_takes_part_ = own != nullptr;
  if (own) pack(*own);
  const bool fast = ranks_.reduction == Reduction::fast;
  others_.resize(static_cast<std::size_t>(size_));
  // Bucket by bucket, so that what is added first arrives first.
  for (std::int64_t r = 0; r < size_; ++r) {
    const bool takes_part = r != rank_ && (fast ? r : rounds_ * size_ + r) < pieces_;
    Tensor& other = others_[static_cast<std::size_t>(r)];
    if (!takes_part) other = Tensor();
    else if (!other.defined()) other = Tensor::empty_like(total_);
  }
  std::int64_t at = 0;
  for (const Bucket& b : buckets_) {
    if (b.count == 0) continue;
    if (b.owner != rank_) {
      if (own) transfers_.push_back(ranks_.send(b.owner, own_.slice(b.first, b.count)));
      continue;
    }
    for (std::int64_t r = 0; r < size_; ++r)
      if (const Tensor& other = others_[static_cast<std::size_t>(r)]; other.defined())
        transfers_.push_back(ranks_.receive(static_cast<int>(r), other.slice(at, b.count)));
    at += b.count;
  }
  under_way_ = true;
}

void SharedSum::fold_round() {
  for (const auto& t : transfers_) t->wait();
  transfers_.clear();
  std::int64_t at = 0;
  for (const Bucket& b : buckets_) {
    if (b.owner != rank_ || b.count == 0) continue;
    const Tensor sum = total_.slice(at, b.count);
    for (std::int64_t r = 0; r < size_; ++r) {
      const bool own = r == rank_;
      const Tensor& other = others_[static_cast<std::size_t>(r)];
      if (own ? !own_takes_part_ : !other.defined()) continue;
      const Tensor term = own ? own_.slice(b.first, b.count) : other.slice(at, b.count);
      if (rounds_ == 0 && r == 0) sum.copy_from(term);
      else add_in_place(sum, term);
    }
    at += b.count;
  }
  ++rounds_;
  under_way_ = false;
}

void SharedSum::share_sum() {
  std::int64_t at = 0;
  for (const Bucket& b : buckets_) {
    if (b.count == 0) continue;
    const Tensor place = own_.slice(b.first, b.count);
    if (b.owner != rank_) {
      transfers_.push_back(ranks_.receive(b.owner, place));
      continue;
    }
    place.copy_from(total_.slice(at, b.count));
    at += b.count;
    for (std::int64_t i = 1; i < size_; ++i)
      transfers_.push_back(ranks_.send(static_cast<int>((rank_ + i) % size_), place));
  }
  for (const auto& t : transfers_) t->wait();
  transfers_.clear();
}

Gradients SharedSum::unpack() const {
  Gradients g;
  std::int64_t at = 0;
  for (const Shape& shape : shapes_) {
    const Tensor t = Tensor::empty(shape, dtype_);
    t.reshape({shape.numel()}).copy_from(own_.slice(at, shape.numel()));
    at += shape.numel();
    g.parameters.push_back(t.to(device_));
  }
  return g;
}

Gradients SharedSum::finish(const std::function<void(std::span<const double>)>& numbers_of) {
  const memory::TagScope scope(memory::Tag::gradients);
  Gradients g;
  if (size_ == 1) {
    g.parameters = std::move(sum_.parameters);
  } else {
    if (ranks_.reduction == Reduction::fast) send_round(next_ > 0 ? &sum_ : nullptr);
    if (under_way_) fold_round();
    if (ranks_.reduction == Reduction::ordered && rounds_ * size_ < pieces_) {
      send_round(nullptr);  // the last pieces, of which this rank has none
      fold_round();
    }
    sum_ = {};
    share_sum();
    g = unpack();
  }
  const auto pieces_of = [&](std::int64_t rank) { return (pieces_ + size_ - 1 - rank) / size_; };
  std::vector<std::int64_t> counts;
  for (std::int64_t r = 0; r < size_; ++r) counts.push_back(pieces_of(r) * static_cast<std::int64_t>(numbers_each_));
  // A rank without pieces does not know how many numbers they have.
  const auto all = pieces_ < size_ ? all_gather(numbers_) : all_gather(numbers_, counts);
  numbers_each_ = all[0].size() / static_cast<std::size_t>(pieces_of(0));
  for (std::int64_t i = 0; i < pieces_; ++i) {
    const auto of_piece = std::span(all[static_cast<std::size_t>(i % size_)])
                              .subspan(static_cast<std::size_t>(i / size_) * numbers_each_, numbers_each_);
    g.loss += of_piece[0];
    if (numbers_of) numbers_of(of_piece.subspan(1));
  }
  return g;
}

}  // namespace costate::finetune
