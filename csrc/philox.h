// The keep rule: whether entry j of tensor t keeps its gradient in step s is a pure function of (seed, t, s, j).
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
// key = (seed low, seed high) and counter = (j div 8, t, s low, s high). The four output words, least significant half
// first, are eight 16-bit draws, one for each j of the group of eight. An entry is kept iff its draw < threshold.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace mist {

constexpr int kGroup = 8;  // entries that share one Philox call

namespace philox {
constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;
constexpr int kRounds = 10;
}  // namespace philox

// Everything of the keep rule that is the same for all entries of one tensor in one step.
struct KeepRule {
  uint64_t seed;
  uint64_t step;
  uint32_t ordinal;    // t: the tensor's position in the selection
  uint32_t threshold;  // floor(keep * 65536 + 0.5), 0..65536
};

struct Draws {
  uint32_t word[4];

  MIST_HOST_DEVICE uint32_t operator[](int lane) const { return (word[lane >> 1] >> (16 * (lane & 1))) & 0xFFFFu; }
};

MIST_HOST_DEVICE inline Draws draws(const KeepRule& rule, uint32_t group) {
  uint32_t c0 = group;
  uint32_t c1 = rule.ordinal;
  uint32_t c2 = static_cast<uint32_t>(rule.step);
  uint32_t c3 = static_cast<uint32_t>(rule.step >> 32);
  uint32_t k0 = static_cast<uint32_t>(rule.seed);
  uint32_t k1 = static_cast<uint32_t>(rule.seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    const uint64_t p0 = uint64_t{philox::kMultiplier0} * c0;
    const uint64_t p1 = uint64_t{philox::kMultiplier1} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += philox::kWeyl0;
    k1 += philox::kWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// One byte per group of eight entries: bit i is set iff entry 8 * group + i is kept.
MIST_HOST_DEVICE inline uint8_t keep_byte(const KeepRule& rule, uint32_t group) {
  const Draws drawn = draws(rule, group);
  uint32_t byte = 0;
  for (int lane = 0; lane < kGroup; ++lane) byte |= static_cast<uint32_t>(drawn[lane] < rule.threshold) << lane;
  return static_cast<uint8_t>(byte);
}

// The same, of those positions alone that lie in [begin, end).
MIST_HOST_DEVICE inline uint32_t keep_byte_within(const KeepRule& rule, uint32_t group, uint32_t begin, uint32_t end) {
  const uint32_t first = group * kGroup;
  if (first >= end || first + kGroup <= begin) return 0;
  uint32_t byte = keep_byte(rule, group);
  if (first < begin) byte &= 0xFFu << (begin - first);
  if (end - first < kGroup) byte &= (1u << (end - first)) - 1;
  return byte;
}

}  // namespace mist
