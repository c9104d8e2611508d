// Several arrays in one launch: their list is an argument of the kernel, and a block finds the array of its chunk in it.
#pragma once
#include "grid.h"

namespace costate::cuda {
namespace {

template <class Entry>
struct Pieces {
  static constexpr int capacity = 256;  // below the 32764 bytes that a kernel takes
  int count = 0;
  std::int64_t first[capacity + 1] = {};  // chunk of each entry; behind the last: how many there are
  Entry entry[capacity];

  std::int64_t chunks() const { return first[count]; }
  __device__ __forceinline__ int of_chunk(std::int64_t chunk) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first[middle] <= chunk)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
};

// body(Pieces, chunks of the lists before) for lists of as many entries as one launch takes; `n(entry)`: its elements, which
// are cut into chunks of `length`. Empty entries are left out.
template <class Entry, class Length, class Body>
void each_list(const Entry* entries, std::int64_t count, std::int64_t length, const Length& n, const Body& body) {
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < count;) {
    Pieces<Entry> list;
    for (; i < count && list.count < Pieces<Entry>::capacity; ++i) {
      if (n(entries[i]) == 0) continue;
      list.entry[list.count] = entries[i];
      list.first[list.count + 1] = list.first[list.count] + (n(entries[i]) + length - 1) / length;
      ++list.count;
    }
    if (list.count) body(list, before);
    before += list.chunks();
  }
}

}  // namespace
}  // namespace costate::cuda
