// Spreads a list of tensors over threads, in pieces; knows no maths.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../tensors.h"
#include "parallel.h"

namespace mist::cpu {

// How many of `count` equal parts of all entries are worth waking a thread for.
inline int64_t worth_a_thread(int64_t count, int64_t entries) {
  constexpr int64_t kEntries = 1 << 15;
  return entries == 0 ? 1 : (count * kEntries + entries - 1) / entries;
}

// Calls body(tensor number, begin, end) once for every piece of at most `piece` positions, of `range(tensor)` a tensor,
// cut at multiples of `piece`. Pieces depend on the ranges alone, never on the number of threads, and a thread gets
// neighbouring pieces.
template <class T, class GetRange, class Body>
void for_each_piece(const std::vector<T>& tensors, int64_t piece, const GetRange& range, const Body& body) {
  std::vector<int64_t> first(tensors.size() + 1, 0);  // number of the tensor's first piece
  int64_t entries = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const Range whole = range(tensors[t]);
    first[t + 1] = first[t] + cells(whole, piece);
    entries += whole.end - whole.begin;
  }
  parallel_for(first.back(), worth_a_thread(first.back(), entries), [&](int64_t begin, int64_t end) {
    size_t t = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin()) - 1;
    for (int64_t number = begin; number < end; ++number) {
      while (number >= first[t + 1]) ++t;
      const Range part = cell(range(tensors[t]), piece, number - first[t]);
      body(t, part.begin, part.end);
    }
  });
}

inline Range positions(const Listed& tensor) { return tensor.positions(); }

}  // namespace mist::cpu
