/* Preloaded into PyTorch builds that carry Intel's MKL: MKL asks this function whether the CPU is Intel's and
   otherwise takes slower kernels, though the instructions are there. Answering yes makes the peer some 5 %
   faster on AMD; a comparison should not win by the vendor string. compare_adjoint_matching.py preloads it. */
int mkl_serv_intel_cpu_true(void) { return 1; }
