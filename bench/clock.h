// The clock of the benches.
#pragma once
#include <ctime>

// Seconds. One thread: processor time, which other programs do not take part in; several: wall clock.
inline double now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
