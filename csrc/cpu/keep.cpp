#include "keep.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mist::cpu {
namespace {

using KeepBytes = void (*)(const KeepRule&, uint32_t, int64_t, uint8_t*);

namespace plain {
void keep_bytes(const KeepRule& rule, uint32_t first, int64_t count, uint8_t* bytes) {
  for (int64_t k = 0; k < count; ++k) bytes[k] = keep_byte(rule, first + static_cast<uint32_t>(k));
}
}  // namespace plain

#if defined(__x86_64__)
// Each instruction set's code lies between push and pop in a namespace of its own and includes no other header there,
// so nothing that an older machine also runs can end up compiled for a newer one.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own AVX-512 header
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {
using Lanes = __m256i;
constexpr int kLanes = 4;
inline Lanes broadcast(uint64_t value) { return _mm256_set1_epi64x(static_cast<long long>(value)); }
inline Lanes counters(uint32_t first) { return _mm256_add_epi32(broadcast(first), _mm256_setr_epi64x(0, 1, 2, 3)); }
inline Lanes multiply(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
inline Lanes high(Lanes a) { return _mm256_srli_epi64(a, 32); }
inline Lanes xor_(Lanes a, Lanes b) { return _mm256_xor_si256(a, b); }
inline Lanes join(Lanes low, Lanes high) { return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA); }
inline void keep_bits(Lanes w0, Lanes w1, Lanes w2, Lanes w3, uint32_t threshold, uint8_t* bytes) {
  // threshold >= 1, and draw < threshold is min(draw, threshold - 1) == draw: AVX2 has no unsigned comparison.
  const Lanes bound = _mm256_set1_epi16(static_cast<short>(threshold - 1));
  const Lanes front = join(w0, w1);  // draws 0..3 of each group
  const Lanes back = join(w2, w3);   // draws 4..7
  const Lanes even = _mm256_unpacklo_epi64(front, back);
  const Lanes odd = _mm256_unpackhi_epi64(front, back);
  const Lanes kept_even = _mm256_cmpeq_epi16(_mm256_min_epu16(even, bound), even);
  const Lanes kept_odd = _mm256_cmpeq_epi16(_mm256_min_epu16(odd, bound), odd);
  // packs works within 128-bit halves: groups 0, 1 from the lower, 2, 3 from the upper, in order.
  const uint32_t bits = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(kept_even, kept_odd)));
  std::memcpy(bytes, &bits, sizeof bits);
}
#include "keep_lanes.h"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw")
#endif
namespace avx512 {
using Lanes = __m512i;
constexpr int kLanes = 8;
inline Lanes broadcast(uint64_t value) { return _mm512_set1_epi64(static_cast<long long>(value)); }
// unpacklo and unpackhi below take the even and the odd lanes: with groups 0..3 on the even ones, bits come in order.
inline Lanes counters(uint32_t first) {
  return _mm512_add_epi32(broadcast(first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
}
inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_epu32(a, b); }
inline Lanes high(Lanes a) { return _mm512_srli_epi64(a, 32); }
inline Lanes xor_(Lanes a, Lanes b) { return _mm512_xor_si512(a, b); }
inline Lanes join(Lanes low, Lanes high) { return _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32)); }
inline void keep_bits(Lanes w0, Lanes w1, Lanes w2, Lanes w3, uint32_t threshold, uint8_t* bytes) {
  const Lanes bound = _mm512_set1_epi16(static_cast<short>(threshold - 1));
  const Lanes front = join(w0, w1);
  const Lanes back = join(w2, w3);
  const uint64_t first_four = _mm512_cmple_epu16_mask(_mm512_unpacklo_epi64(front, back), bound);
  const uint64_t last_four = _mm512_cmple_epu16_mask(_mm512_unpackhi_epi64(front, back), bound);
  const uint64_t bits = first_four | last_four << 32;
  std::memcpy(bytes, &bits, sizeof bits);
}
#include "keep_lanes.h"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif
#endif  // __x86_64__

struct InstructionSet {
  const char* name;
  KeepBytes keep_bytes;
};

std::vector<InstructionSet> runnable() {
  std::vector<InstructionSet> sets;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
    sets.push_back({"avx512", avx512::keep_bytes});
  if (__builtin_cpu_supports("avx2")) sets.push_back({"avx2", avx2::keep_bytes});
#endif
  sets.push_back({"plain", plain::keep_bytes});
  return sets;
}

InstructionSet& current() {
  static InstructionSet chosen = runnable().front();
  return chosen;
}

}  // namespace

void keep_bytes(const KeepRule& rule, uint32_t first, int64_t count, uint8_t* bytes) {
  if (rule.threshold == 0) {
    std::memset(bytes, 0, static_cast<size_t>(count));
  } else {
    current().keep_bytes(rule, first, count, bytes);
  }
}

std::string instruction_set() { return current().name; }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : runnable()) names.emplace_back(set.name);
  return names;
}

void use_instruction_set(const std::string& name) {
  std::string known;
  for (const InstructionSet& set : runnable()) {
    if (name == set.name) {
      current() = set;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(set.name);
  }
  throw std::invalid_argument("instruction set '" + name + "' cannot run here; this machine runs: " + known);
}

int kept_positions(const KeepRule& rule, int64_t begin, int64_t end, int32_t* positions) {
  constexpr int64_t kBytes = 512;
  uint8_t bytes[kBytes + 8];  // the last word of eight is read whole
  int found = 0;
  for (int64_t at = begin; at < end; at += kBytes * kGroup) {
    const int64_t entries = std::min(end - at, kBytes * kGroup);
    const int64_t groups = (entries + kGroup - 1) / kGroup;
    std::memset(bytes + groups / 8 * 8, 0, 8);
    keep_bytes(rule, static_cast<uint32_t>(at / kGroup), groups, bytes);
    if (const int64_t beyond = groups * kGroup - entries) bytes[groups - 1] &= static_cast<uint8_t>(0xFF >> beyond);
    for (int64_t word = 0; word < groups; word += 8) {
      uint64_t bits;
      std::memcpy(&bits, bytes + word, sizeof bits);  // byte i of the word is group word + i: little endian
      while (bits != 0) {
        positions[found++] = static_cast<int32_t>(at + word * kGroup + std::countr_zero(bits));
        bits &= bits - 1;
      }
    }
  }
  return found;
}

}  // namespace mist::cpu
