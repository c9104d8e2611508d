// Vendi score: the effective number of different samples. With a kernel k(x, x) = 1 and eigenvalues l_i of the matrix
// K_ij = sqrt(w_i w_j) k(x_i, x_j), whose trace is 1,
//   VS_q = exp(log(sum_i l_i^q)/(1 - q)),   VS_1 = exp(-sum_i l_i log l_i),   VS_inf = 1/max l_i,
// between 1 (all samples alike) and their number (no two alike): the exponential of the Renyi entropy of the eigenvalues.
// Well-separated modes of weights p_i give exp(H(p)) up to the spread within a mode, which counts as well. References:
// Friedman and Dieng, arXiv 2210.02410, Definition 3.1; orders: Pasarkar and Dieng, arXiv 2310.12952.
#pragma once
#include <span>

namespace costate::finetune {

// Of a kernel matrix (rows, rows), row-major, symmetric with ones on the diagonal (to 1e-6). `weights` (rows), nonnegative,
// scaled to sum to 1, or empty for equal ones. order > 0; infinity is allowed. O(rows^3). All functions throw
// Error(argument) on sizes, weights and orders that make no sense, Error(numerical) on numbers that are not finite.
double vendi_of_kernel(std::span<const double> kernel, double order = 1, std::span<const double> weights = {});

// Of rows of `dim` numbers with the Gaussian kernel exp(-|x - y|^2/(2 bandwidth^2)); bandwidth > 0.
double vendi_of_points(int dim, std::span<const double> x, double bandwidth, double order = 1,
                       std::span<const double> weights = {});

// Of rows of `dim` features with the cosine kernel. The eigenvalues are those of X X^T or, where there are more rows than
// features, of X^T X, which has the same ones but zeros: O(min(rows, dim)^3). A row of zeros has no direction and is an
// error.
double vendi_of_features(int dim, std::span<const double> features, double order = 1, std::span<const double> weights = {});

}  // namespace costate::finetune
