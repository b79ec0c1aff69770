// How a range of positions is cut where they are multiples of a length. Positions are those in a tensor's whole
// selection list, so a cut lies at the same entry whichever part of the list a rank holds.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace mist {

// Positions that share one place in a packed vector: what a block of drop_apply.cu works on.
constexpr int64_t kPlacePiece = 2048;

struct Range {
  int64_t begin;
  int64_t end;
};

MIST_HOST_DEVICE inline int64_t cells(const Range& range, int64_t length) {
  return range.begin == range.end ? 0 : (range.end + length - 1) / length - range.begin / length;
}

// Cell `number` of a range, counted from its own first one.
MIST_HOST_DEVICE inline Range cell(const Range& range, int64_t length, int64_t number) {
  const int64_t begin = (range.begin / length + number) * length;
  const int64_t end = begin + length;
  return {begin < range.begin ? range.begin : begin, end < range.end ? end : range.end};
}

}  // namespace mist
