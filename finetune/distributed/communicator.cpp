#include <costate/finetune/distributed/communicator.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace costate::finetune {
namespace {

class Single final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Transfer> send(int to, const Tensor&) override { none(to); }
  std::unique_ptr<Transfer> receive(int from, const Tensor&) override { none(from); }

 private:
  [[noreturn]] static void none(int peer) { fail(Fault::argument, {"communicator: there is no rank ", peer, " but this one"}); }
};

constinit thread_local Communicator* current = nullptr;

using Transfers = std::vector<std::unique_ptr<Transfer>>;
void wait(const Transfers& transfers) {
  for (const auto& t : transfers) t->wait();
}

// One tensor of `counts[r]` elements from each rank, `own` being this rank's.
std::vector<Tensor> gather(const Tensor& own, const std::vector<std::int64_t>& counts) {
  Communicator& ranks = communicator();
  std::vector<Tensor> all;
  Transfers transfers;
  for (int r = 0; r < ranks.size(); ++r) {
    const std::int64_t n = counts[static_cast<std::size_t>(r)];
    all.push_back(r == ranks.rank() ? own : Tensor::empty({n}, own.dtype()));
    if (r != ranks.rank() && n > 0) transfers.push_back(ranks.receive(r, all.back()));
  }
  // Everyone begins with its neighbour: no rank is written to by all at once.
  for (int i = 1; i < ranks.size() && own.numel() > 0; ++i)
    transfers.push_back(ranks.send((ranks.rank() + i) % ranks.size(), own));
  wait(transfers);
  return all;
}

}  // namespace

CommunicatorScope::CommunicatorScope(Communicator* communicator) : outer_(std::exchange(current, communicator)) {}
CommunicatorScope::~CommunicatorScope() { current = outer_; }

Communicator& communicator() {
  static Single single;
  return current ? *current : single;
}

std::vector<std::vector<double>> all_gather(std::span<const double> numbers) {
  if (communicator().size() == 1) return {{numbers.begin(), numbers.end()}};
  const double count = static_cast<double>(numbers.size());
  std::vector<std::int64_t> counts;
  for (const auto& of_rank : all_gather_alike({&count, 1})) counts.push_back(static_cast<std::int64_t>(of_rank[0]));
  return all_gather(numbers, counts);
}

std::vector<std::vector<double>> all_gather_alike(std::span<const double> numbers) {
  return all_gather(numbers, std::vector<std::int64_t>(static_cast<std::size_t>(communicator().size()),
                                                       static_cast<std::int64_t>(numbers.size())));
}

std::vector<std::vector<double>> all_gather(std::span<const double> numbers, const std::vector<std::int64_t>& counts) {
  require(counts.size() == static_cast<std::size_t>(communicator().size()) &&
              counts[static_cast<std::size_t>(communicator().rank())] == static_cast<std::int64_t>(numbers.size()),
          "all_gather: rank ", communicator().rank(), " of ", communicator().size(), " brings ", numbers.size(),
          " numbers, which is not what it said, or ", counts.size(), " counts for as many ranks");
  if (communicator().size() == 1) return {{numbers.begin(), numbers.end()}};
  std::vector<std::vector<double>> out;
  for (const Tensor& t : gather(Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())}), counts))
    out.emplace_back(t.values<double>().begin(), t.values<double>().end());
  return out;
}

std::vector<std::string> all_gather(const std::string& text) {
  std::vector<double> letters;
  for (const char c : text) letters.push_back(static_cast<unsigned char>(c));
  std::vector<std::string> out;
  for (const auto& of_rank : all_gather(letters)) {
    std::string& t = out.emplace_back();
    for (const double c : of_rank) t += static_cast<char>(static_cast<unsigned char>(c));
  }
  return out;
}

void barrier() {
  const double here = 1;
  all_gather_alike({&here, 1});
}

Share share(std::int64_t pieces, const Communicator& ranks) {
  const std::int64_t r = ranks.rank(), n = ranks.size();
  return {pieces * r / n, pieces * (r + 1) / n};
}

void share_rows(const Tensor& all, std::int64_t piece_rows) {
  Communicator& ranks = communicator();
  if (ranks.size() == 1) return;
  const std::int64_t rows = all.extent(0), pieces = (rows + piece_rows - 1) / piece_rows;
  // No message of more than this: what carries them may count bytes in 31 bits.
  const std::int64_t row_bytes = std::max<std::int64_t>(1, all.bytes() / std::max<std::int64_t>(rows, 1));
  const std::int64_t most = std::max<std::int64_t>(1, (std::int64_t{64} << 20) / row_bytes);
  const auto each_part = [&](int rank, const auto& body) {
    const std::int64_t first = pieces * rank / ranks.size() * piece_rows,
                       end = std::min(rows, pieces * (rank + 1) / ranks.size() * piece_rows);
    for (std::int64_t at = first; at < end; at += most) body(all.slice(at, std::min(most, end - at)));
  };
  Transfers transfers;
  for (int i = 1; i < ranks.size(); ++i) {
    const int from = (ranks.rank() + ranks.size() - i) % ranks.size();
    each_part(from, [&](const Tensor& part) { transfers.push_back(ranks.receive(from, part)); });
  }
  for (int i = 1; i < ranks.size(); ++i) {
    const int to = (ranks.rank() + i) % ranks.size();
    each_part(ranks.rank(), [&](const Tensor& part) { transfers.push_back(ranks.send(to, part)); });
  }
  wait(transfers);
}

}  // namespace costate::finetune
