// Visits the kept entries of a piece of a tensor's selection.
#pragma once

#include <bit>
#include <cstdint>

#include "../tensors.h"
#include "keep.h"

namespace mist::cpu {

constexpr int64_t kKeptPiece = 8192;  // positions that one call goes through at most
static_assert(kKeptPiece % kPlacePiece == 0);

// Calls visit(number, entry of the selection, place in the tensor) for each kept entry of the positions [begin, end),
// numbered from 0 on, and some time before it prefetch(place).
template <class Prefetch, class Visit>
void for_each_kept(const Listed& tensor, const int32_t* index, const Keeper& keeper, int64_t begin, int64_t end,
                   const Prefetch& prefetch, const Visit& visit) {
  constexpr int kAhead = 32;  // kept entries whose memory is under way while an earlier one is visited
  int32_t kept[kKeptPiece];   // entries of the selection
  int32_t place[kKeptPiece];  // places in the tensor
  int found = 0;
  int done = 0;
  const auto visit_until = [&](int stop) {
    for (; done < stop; ++done) visit(done, kept[done], place[done]);
  };
  // Drawing computes and visiting waits for memory: done in turns, each hides the other.
  for (int64_t at = begin / kWord * kWord; at < end; at += kWord) {
    for (uint64_t bits = keeper.kept(at, begin, end); bits != 0; bits &= bits - 1) {
      const auto j = static_cast<int32_t>(at + std::countr_zero(bits) - tensor.first);
      const int32_t where = index ? index[j] : j;
      prefetch(where);
      kept[found] = j;
      place[found++] = where;
    }
    visit_until(found - kAhead);
  }
  visit_until(found);
}

}  // namespace mist::cpu
