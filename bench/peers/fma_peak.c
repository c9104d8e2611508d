/* Peak float32 rate of one core, in GFLOP/s: independent fused multiply-adds that never leave the registers.
   Build with optimisation for the machine at hand (-O3 -march=native); prints the best of 20 rounds. */
#include <stdio.h>
#include <time.h>

#ifdef __AVX512F__
typedef float Vector __attribute__((vector_size(64)));
#else
typedef float Vector __attribute__((vector_size(32)));
#endif
enum { chains = 12, lanes = sizeof(Vector) / sizeof(float), steps = 4000000 };

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char** argv) {
  (void)argv;
  Vector a[chains], factor, term;
  for (int l = 0; l < lanes; l++) {  /* values the compiler cannot know */
    factor[l] = 1.0f - 1e-7f * (float)argc;
    term[l] = 1e-7f * (float)argc;
  }
  for (int c = 0; c < chains; c++) a[c] = factor;
  double best = 0;
  for (int round = 0; round < 20; round++) {
    const double start = cpu_seconds();
    for (int s = 0; s < steps; s++)
#pragma GCC unroll 12
      for (int c = 0; c < chains; c++) a[c] = a[c] * factor + term;
    const double rate = 2.0 * chains * lanes * steps / (cpu_seconds() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  float sum = 0;
  for (int c = 0; c < chains; c++) sum += a[c][0];
  printf("%.1f\n", sum == 0 ? 0 : best);
  return 0;
}
