#include "keep.h"

#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mist::cpu {
namespace {

using Draw = uint64_t (*)(const Keeper&, uint32_t);

// The vectorised comparisons need a threshold of at least 1.
uint64_t nothing(const Keeper&, uint32_t) { return 0; }

namespace plain {
uint64_t draw(const Keeper& keeper, uint32_t group) {
  uint64_t bits = 0;
  for (int k = 0; k < kWord / kGroup; ++k)
    bits |= uint64_t{keep_byte(keeper.rule, group + static_cast<uint32_t>(k))} << (k * kGroup);
  return bits;
}
}  // namespace plain

#if defined(__x86_64__)
#include "target/avx2_begin.h"
namespace avx2 {
using Lanes = __m256i;
constexpr int kLanes = 4;
inline Lanes broadcast(uint64_t value) { return _mm256_set1_epi64x(static_cast<long long>(value)); }
inline Lanes counters(uint32_t first) { return _mm256_add_epi32(broadcast(first), _mm256_setr_epi64x(0, 1, 2, 3)); }
inline Lanes multiply(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
inline Lanes high(Lanes a) { return _mm256_srli_epi64(a, 32); }
inline Lanes xor3(Lanes a, Lanes b, Lanes c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
inline Lanes join(Lanes low, Lanes high) { return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA); }
inline uint64_t compare(Lanes w0, Lanes w1, Lanes w2, Lanes w3, uint32_t threshold) {
  // draw < threshold is min(draw, threshold - 1) == draw: AVX2 has no unsigned comparison.
  const Lanes bound = _mm256_set1_epi16(static_cast<short>(threshold - 1));
  const Lanes front = join(w0, w1);  // draws 0..3 of each group
  const Lanes back = join(w2, w3);   // draws 4..7
  const Lanes even = _mm256_unpacklo_epi64(front, back);
  const Lanes odd = _mm256_unpackhi_epi64(front, back);
  const Lanes kept_even = _mm256_cmpeq_epi16(_mm256_min_epu16(even, bound), even);
  const Lanes kept_odd = _mm256_cmpeq_epi16(_mm256_min_epu16(odd, bound), odd);
  // packs works within 128-bit halves: groups 0, 1 from the lower, 2, 3 from the upper, in order.
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(kept_even, kept_odd)));
}
#include "keep_lanes.h"
}  // namespace avx2
#include "target/end.h"

#include "target/avx512_begin.h"
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
inline Lanes xor3(Lanes a, Lanes b, Lanes c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline Lanes join(Lanes low, Lanes high) { return _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32)); }
inline uint64_t compare(Lanes w0, Lanes w1, Lanes w2, Lanes w3, uint32_t threshold) {
  const Lanes bound = _mm512_set1_epi16(static_cast<short>(threshold - 1));
  const Lanes front = join(w0, w1);
  const Lanes back = join(w2, w3);
  const uint64_t first_four = _mm512_cmple_epu16_mask(_mm512_unpacklo_epi64(front, back), bound);
  const uint64_t last_four = _mm512_cmple_epu16_mask(_mm512_unpackhi_epi64(front, back), bound);
  return first_four | last_four << 32;
}
#include "keep_lanes.h"
}  // namespace avx512
#include "target/end.h"
constexpr Variants<Draw> kDraw{plain::draw, avx2::draw, avx512::draw};
#else
constexpr Variants<Draw> kDraw{plain::draw, nullptr, nullptr};
#endif

}  // namespace

Keeper::Keeper(const KeepRule& given) : rule(given), draw_(given.threshold == 0 ? nothing : kDraw.chosen()) {
  uint32_t k0 = static_cast<uint32_t>(rule.seed);
  uint32_t k1 = static_cast<uint32_t>(rule.seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    key0[round] = k0;
    key1[round] = k1;
    k0 += philox::kWeyl0;
    k1 += philox::kWeyl1;
  }
}

}  // namespace mist::cpu
