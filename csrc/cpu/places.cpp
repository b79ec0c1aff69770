// places: how many entries a step keeps in each piece of the selection lists, summed up.
#include <bit>
#include <numeric>

#include "keep.h"
#include "kernels.h"
#include "pieces.h"

namespace mist::cpu {

void places(const std::vector<Listed>& lists, const Draw& draw, int64_t step, int64_t* places) {
  places[0] = 0;
  int64_t* const end = places + 1;  // of each piece
  for_each_piece(lists, kPlacePiece, positions, [&](size_t t, int64_t begin, int64_t stop) {
    const Listed& list = lists[t];
    const Keeper keeper({draw.seed, static_cast<uint64_t>(step), list.ordinal, draw.threshold});
    int64_t kept = 0;
    for (int64_t at = begin / kWord * kWord; at < stop; at += kWord)
      kept += std::popcount(keeper.kept(at, begin, stop));
    end[list.piece_of(begin)] = kept;
  });
  std::partial_sum(places, end + piece_count(lists), places);
}

}  // namespace mist::cpu
