#include <costate/tensor/sum_squares.h>

#include <limits>

namespace costate {

double sum_squares(std::span<const Tensor> tensors) {
  double squares = 0;
  std::vector<Elements> list;
  for (std::size_t begin = 0, i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    if (t.is_meta()) return std::numeric_limits<double>::quiet_NaN();
    list.push_back({t.raw(), t.numel()});
    const bool goes_on = i + 1 < tensors.size() && tensors[i + 1].dtype() == tensors[begin].dtype() &&
                         tensors[i + 1].device() == tensors[begin].device();
    // On the cpu a sum a tensor, or two dtypes would be added in another order than one.
    if (goes_on && t.device().kind != DeviceKind::cpu) continue;
    double sum = 0;
    const auto count = static_cast<std::int64_t>(list.size());
    if (t.device().kind == DeviceKind::cpu) {
      kernels(t).sum_squares(t.dtype(), count, list.data(), &sum);
    } else {
      const Tensor there = Tensor::empty({1}, DType::f64, t.device());
      kernels(t).sum_squares(t.dtype(), count, list.data(), static_cast<double*>(there.raw_mutable()));
      sum = there.item();
    }
    squares += sum;
    list.clear(), begin = i + 1;
  }
  return squares;
}

}  // namespace costate
