// What the ops that know the vector of packed gradients check alike.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "checker.h"

namespace mist {

// Counts the pieces of all lists.
template <class SomeList>
void number_pieces(const Requirements& checker, std::vector<SomeList>& lists) {
  int64_t pieces = 0;
  for (SomeList& list : lists) {
    list.piece = static_cast<uint32_t>(pieces);
    pieces += cells(list.positions(), kPlacePiece);
    checker.require(pieces <= std::numeric_limits<uint32_t>::max(), "the lists have ", pieces, " or more pieces of ",
                    kPlacePiece, " positions, expected at most 4294967295; call it for fewer of them at a time");
  }
}

// `pieces` are those of the lists that the vector was packed from.
inline void check_packed(Checker& checker, const Tensor& packed, const Tensor& places, int64_t pieces, bool written) {
  checker.placed({"packed"}, packed);
  if (packed.scalar_type() != ScalarType::Float && packed.scalar_type() != ScalarType::BFloat16)
    checker.require(false, "packed has dtype ", dtype_name(packed), ", expected float32 or bfloat16");
  checker.placed({"places"}, places);
  checker.typed({"places"}, places, ScalarType::Long);
  checker.sized({"places"}, places, pieces + 1, "one for each piece of 2048 positions and one for the end");
  const int64_t length = packed.numel();
  if (written) {
    checker.written({"packed"}, packed, length, packed.element_size());
  } else {
    checker.read({"packed"}, packed, length, packed.element_size());
  }
  checker.read<int64_t>({"places"}, places, pieces + 1);
}

}  // namespace mist
