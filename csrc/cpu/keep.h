// The keep rule for 64 entries at a time, on the widest instruction set the machine has.
#pragma once

#include <cstdint>

#include "../philox.h"

namespace mist::cpu {

constexpr int kWord = 64;  // entries of a word: entry `first` + i is bit i

// The draws of one tensor in one step.
class Keeper {
 public:
  explicit Keeper(const KeepRule& rule);

  // Which of the entries from `at` on keep their gradient, as far as they lie in [begin, end); `at` is a multiple of
  // kWord.
  uint64_t kept(int64_t at, int64_t begin, int64_t end) const {
    uint64_t bits = draw_(*this, static_cast<uint32_t>(at / kGroup));
    if (at < begin) bits &= ~uint64_t{0} << (begin - at);
    if (end - at < kWord) bits &= ~(~uint64_t{0} << (end - at));
    return bits;
  }

  KeepRule rule;
  uint64_t key0[philox::kRounds];  // the key of each round, one word in 64 bits
  uint64_t key1[philox::kRounds];

 private:
  using Draw = uint64_t (*)(const Keeper&, uint32_t group);
  Draw draw_;
};

}  // namespace mist::cpu
