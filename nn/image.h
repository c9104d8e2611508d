// What networks of pictures share.
#pragma once
#include <costate/autograd/ops.h>

namespace costate::nn {

// x as pictures (n, height, width, channels); `height` and `width` 0: any. One channel may go without its
// axis. Throws Error(argument); `where` begins the sentence.
Var as_pictures(const Var& x, std::int64_t height, std::int64_t width, std::int64_t channels,
                std::string_view where);

// Throws unless `v`, called `what`, has shape (rows,).
void check_rows(const Var& v, std::int64_t rows, std::string_view what, std::string_view where);

}  // namespace costate::nn
