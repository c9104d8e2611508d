// A reward that is a program in any language. It is started at the first call and talked to through its standard input and
// output, by lines of text that end in \n and 32-bit floats in little-endian order:
//
//   Costate                                the program
//   costate-reward 1\n                     costate-reward 1\n
//   score ROWS RANK D1 ... DRANK\n         ok\n  and ROWS floats, the values
//     and ROWS D1 ... DRANK floats         or  error MESSAGE\n
//   gradient ROWS RANK D1 ... DRANK\n      ok gradient\n  and ROWS floats, then ROWS D1 ... DRANK floats, the gradients
//     and the floats as above              or  error MESSAGE\n
//
// ROWS samples of shape (D1, ..., DRANK), row-major; a value of NaN says that a sample cannot be scored. `gradient` is asked
// for only of programs that were declared to answer it. The end of the input asks the program to end. What it writes to its
// standard error goes to that of the process. After a message `error` the program lives on; after a failure of any other kind
// it is killed, with the processes that it started in its group, and the next call starts it anew.
#pragma once
#include <costate/finetune/reward/reward.h>

namespace costate::finetune {

struct SubprocessOptions {
  std::vector<std::string> command;  // the program, found along PATH, and its arguments
  bool gradient = false;             // whether it answers `gradient`: the reward is then differentiable (first order)
  double timeout = 60;               // seconds for one answer, the first one's with the start of the program
};

// Copies share one process, which ends with the last of them. No handler of signals is installed, SIGPIPE is held back in the
// calling thread only. Calls throw Error(Fault::io) when the program cannot be started, ends, is too slow, or answers something
// else, with the command, how it ended and the first bytes that came; Error(Fault::runtime) for its own `error`.
Reward subprocess_reward(SubprocessOptions options);

}  // namespace costate::finetune
