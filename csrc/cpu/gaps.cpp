// Ascending positions as the gaps between them: a byte each, 255 where a gap is larger; those stand behind all bytes,
// in four bytes each, least significant first.
#include <algorithm>

#include "kernels.h"

namespace mist::cpu {
namespace {

constexpr uint8_t kEscape = 255;

// How far an entry is from the one before, which ascends; unsigned and as wide as an entry, for vectors of them.
uint32_t distance(const int32_t* index, int64_t j) {
  return static_cast<uint32_t>(index[j]) - static_cast<uint32_t>(index[j - 1]);
}

}  // namespace

int64_t count_escapes(const int32_t* index, int64_t count) {
  constexpr int64_t kCounted = 1 << 16;
  if (count == 0) return 0;
  int64_t escapes = index[0] >= kEscape;
  int32_t descends = index[0] < 0;
  for (int64_t begin = 1; begin < count; begin += kCounted) {
    uint32_t found = 0;
    for (int64_t j = begin, end = std::min(begin + kCounted, count); j < end; ++j) {
      descends |= index[j] <= index[j - 1];
      found += distance(index, j) > kEscape;
    }
    escapes += found;
  }
  return descends ? -1 : escapes;
}

void encode_gaps(const int32_t* index, int64_t count, int64_t escapes, uint8_t* code) {
  if (count == 0) return;
  code[0] = static_cast<uint8_t>(std::min<int32_t>(index[0], kEscape));
  for (int64_t j = 1; j < count; ++j)
    code[j] = static_cast<uint8_t>(std::min<uint32_t>(distance(index, j) - 1, kEscape));
  uint8_t* wide = code + count;
  for (int64_t j = 0; escapes > 0; ++j, --escapes) {
    j = std::find(code + j, code + count, kEscape) - code;
    const uint32_t gap = j == 0 ? static_cast<uint32_t>(index[0]) : distance(index, j) - 1;
    for (int shift = 0; shift < 32; shift += 8) *wide++ = static_cast<uint8_t>(gap >> shift);
  }
}

GapFault decode_gaps(const uint8_t* code, int64_t bytes, int64_t count, int64_t size, int32_t* index) {
  if (bytes != count + 4 * std::count(code, code + count, kEscape)) return GapFault::length;
  const uint8_t* wide = code + count;
  int64_t position = -1;
  for (int64_t j = 0; j < count; ++j) {
    int64_t skipped = code[j];
    if (skipped == kEscape) {
      skipped = 0;
      for (int shift = 0; shift < 32; shift += 8) skipped |= int64_t{*wide++} << shift;
      if (skipped < kEscape) return GapFault::escape;
      if (position + skipped + 1 >= size) return GapFault::range;
    }
    position += skipped + 1;
    index[j] = static_cast<int32_t>(position);
  }
  return position < size ? GapFault::none : GapFault::range;
}

}  // namespace mist::cpu
