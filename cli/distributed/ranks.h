// A run by several processes: what they agree on, and what becomes of an error.
//
// What is wrong with a request is found before the run begins, by all ranks or by one, and agreed on: one rank says it, and all
// end as they would alone. An error after that leaves the other ranks waiting for messages: its rank says it, with its number,
// and ends the job; the checkpoints are those that were there. A request to stop that one of them hears stops all at the same
// place.
#pragma once
#include <costate/finetune/distributed/communicator.h>

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "distributed/launch.h"

namespace costate::cli {

struct Config;
class Session;
enum class Stage : unsigned char;

// Before the run begins: an error of this rank, or of another, which says it.
class AgreedError final : public Error {
 public:
  AgreedError(Fault fault, const std::string& text, bool mine) : Error(fault, text), mine_(mine) {}
  bool mine() const { return mine_; }  // whether this rank is the one to say it

 private:
  bool mine_;
};

inline bool first_rank() { return finetune::communicator().rank() == 0; }
inline bool several_ranks() { return finetune::communicator().size() > 1; }

// Runs body on every rank; throws AgreedError on all when it threw an Error on one, and Interrupted (run/stop.h) when it threw
// that. With a single rank: body itself.
void together(const std::function<void()>& body);
// The same where the first rank alone has something to do, which it does as if it were a single one.
void by_first_rank(const std::function<void()>& body);

// Whether it is so on any rank; of several things at once.
bool any_rank(bool own);
std::array<bool, 2> any_rank(std::array<bool, 2> own);

// That all ranks compute with the same version, kernels and configuration, or their numbers would differ, and do the same;
// throws on all. `request` is any text about what is to be done.
void check_alike(const Config& config, const std::string& request);

// Throws Error(argument) in one sentence where several processes do not share the work of these stages.
void check_shared(const Config& config, const std::vector<Stage>& stages, int ranks);

// Threads of this rank where the configuration leaves them open: its processors, shared with the ranks that have the same.
int threads_of_rank();

// Runs body, whose evaluations and operations are a share of all ranks'; the session counts those of all.
void count_shared(Session& session, const std::function<void()>& body);

// The code, a second later: of a rank whose error is said by the first one. Launchers end all ranks when one fails, and the first
// is to have spoken by then.
int silent(int code);

// What `body` returns, in the process or processes that were started, with the words for an error: body throws, and
// complain(sentence, code of the fault) says it on stderr and returns the code of the process.
int run_by_ranks(const Launch& launch, const std::function<void()>& body,
                 const std::function<int(const std::string& sentence, int code)>& complain, int (*code_of)(Fault));

}  // namespace costate::cli
