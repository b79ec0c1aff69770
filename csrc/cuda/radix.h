// How the k-th largest score is searched: digit by digit of an integer that orders like the score. Host and device, no
// torch.
#pragma once

#include <cstdint>
#include <cstring>

#include "../philox.h"

namespace mist::radix {

constexpr int kPasses = 3;
constexpr int kBins = 1 << 11;  // values of a digit; the last two digits overlap in one bit, which is known by then

// Larger for a larger score, equal for -0 and +0.
MIST_HOST_DEVICE inline uint32_t key(float score) {
  const float unsigned_zero = score + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &unsigned_zero, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

MIST_HOST_DEVICE inline float score(uint32_t key) {
  const uint32_t bits = key >> 31 ? key & 0x7FFFFFFFu : ~key;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The key of a given rank, as far as it is known after some passes.
struct Search {
  uint32_t found;  // its known digits, zero behind them
  int32_t rank;    // its rank, counted from 1, among the keys that share those

  MIST_HOST_DEVICE static int shift(int pass) { return pass == 0 ? 21 : pass == 1 ? 10 : 0; }

  MIST_HOST_DEVICE static uint32_t digit(uint32_t key, int pass) { return key >> shift(pass) & (kBins - 1); }

  // Whether a key shares the digits that are known before this pass.
  MIST_HOST_DEVICE bool shares(uint32_t key, int pass) const {
    return pass == 0 || (key ^ found) >> shift(pass - 1) == 0;
  }

  // After a pass that counted the keys of each digit: whether the rank falls to `digit` or the one below it, which have
  // `here` and `below` keys, where `above` keys have a larger digit. If so, `narrowed` becomes what is known then.
  MIST_HOST_DEVICE bool narrow(int pass, uint32_t digit, int32_t above, int32_t here, int32_t below,
                               Search& narrowed) const {
    if (above >= rank || rank > above + here + below) return false;
    const bool second = rank > above + here;
    narrowed = {found | (digit - second) << shift(pass), rank - above - (second ? here : 0)};
    return true;
  }
};

}  // namespace mist::radix
