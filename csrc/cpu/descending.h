// Finds an index that does not ascend.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "pieces.h"

namespace mist::cpu {

// The number of a list whose index is not strictly ascending, -1 if there is none.
template <class List>
int64_t first_descending(const std::vector<List>& lists) {
  constexpr int64_t kPiece = 1 << 17;
  std::atomic<int64_t> wrong{-1};
  for_each_piece(
      lists, kPiece, [](const List& list) { return Range{0, list.index ? list.selected : 0}; },
      [&](size_t t, int64_t begin, int64_t end) {
        const int32_t* const index = lists[t].index;
        int32_t descents = 0;  // as wide as an entry, for vectors of them
        for (int64_t j = std::max<int64_t>(begin, 1); j < end; ++j) descents |= index[j - 1] >= index[j];
        if (descents) wrong = static_cast<int64_t>(t);
      });
  return wrong;
}

}  // namespace mist::cpu
