#include "token_tile.h"

#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa.h"
#include "real.h"

namespace mist::cpu {
namespace {

namespace plain {
using Four = float __attribute__((vector_size(16)));
struct Lanes {
  Four part[kTokenLanes / 4];
};
inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}
inline Lanes product(const Lanes& a, const Lanes& b) {
  return {a.part[0] * b.part[0], a.part[1] * b.part[1], a.part[2] * b.part[2], a.part[3] * b.part[3]};
}
inline Lanes added_product(const Lanes& lanes, const Lanes& a, const Lanes& b) {
  const Lanes more = product(a, b);
  return {lanes.part[0] + more.part[0], lanes.part[1] + more.part[1], lanes.part[2] + more.part[2],
          lanes.part[3] + more.part[3]};
}
inline float sum(const Lanes& lanes) {
  const Four four = (lanes.part[0] + lanes.part[2]) + (lanes.part[1] + lanes.part[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
inline void transpose(const float* from, int64_t stride, float* to) {
  for (int i = 0; i < kTokenLanes; ++i)
    for (int k = 0; k < kTokenLanes; ++k) to[i * kTokenTile + k] = from[k * stride + i];
}
#include "token_tile_loops.h"
}  // namespace plain
#if defined(__x86_64__)
#include "target/avx2_begin.h"
namespace avx2 {
struct Lanes {
  __m256 low, high;
};
inline Lanes load(const float* from) { return {_mm256_load_ps(from), _mm256_load_ps(from + 8)}; }
inline Lanes product(const Lanes& a, const Lanes& b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Lanes added_product(const Lanes& lanes, const Lanes& a, const Lanes& b) {
  const Lanes more = product(a, b);
  return {_mm256_add_ps(lanes.low, more.low), _mm256_add_ps(lanes.high, more.high)};
}
inline float sum_of_eight(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float sum(const Lanes& lanes) { return sum_of_eight(_mm256_add_ps(lanes.low, lanes.high)); }
// Pairs, then fours, then halves: eight of a register's columns become rows.
inline void transpose_eight(const float* from, int64_t stride, float* to) {
  __m256 a[8], b[8];
  for (int k = 0; k < 8; ++k) a[k] = _mm256_loadu_ps(from + k * stride);
  for (int k = 0; k < 8; k += 2) {
    b[k] = _mm256_unpacklo_ps(a[k], a[k + 1]);
    b[k + 1] = _mm256_unpackhi_ps(a[k], a[k + 1]);
  }
  for (int k = 0; k < 8; k += 4) {
    a[k] = _mm256_shuffle_ps(b[k], b[k + 2], 0x44);
    a[k + 1] = _mm256_shuffle_ps(b[k], b[k + 2], 0xEE);
    a[k + 2] = _mm256_shuffle_ps(b[k + 1], b[k + 3], 0x44);
    a[k + 3] = _mm256_shuffle_ps(b[k + 1], b[k + 3], 0xEE);
  }
  for (int k = 0; k < 4; ++k) {
    _mm256_store_ps(to + k * kTokenTile, _mm256_permute2f128_ps(a[k], a[k + 4], 0x20));
    _mm256_store_ps(to + (k + 4) * kTokenTile, _mm256_permute2f128_ps(a[k], a[k + 4], 0x31));
  }
}
inline void transpose(const float* from, int64_t stride, float* to) {
  for (int i = 0; i < kTokenLanes; i += 8)
    for (int k = 0; k < kTokenLanes; k += 8) transpose_eight(from + k * stride + i, stride, to + i * kTokenTile + k);
}
#include "token_tile_loops.h"
}  // namespace avx2
#include "target/end.h"

#include "target/avx512_begin.h"
namespace avx512 {
using Lanes = __m512;
inline Lanes load(const float* from) { return _mm512_load_ps(from); }
inline Lanes product(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
inline Lanes added_product(Lanes lanes, Lanes a, Lanes b) { return _mm512_add_ps(lanes, _mm512_mul_ps(a, b)); }
inline float sum(Lanes lanes) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
// Pairs, then fours within each quarter of a register, then the quarters.
inline void transpose(const float* from, int64_t stride, float* to) {
  __m512 a[16], b[16];
  for (int k = 0; k < 16; ++k) a[k] = _mm512_loadu_ps(from + k * stride);
  for (int k = 0; k < 16; k += 2) {
    b[k] = _mm512_unpacklo_ps(a[k], a[k + 1]);
    b[k + 1] = _mm512_unpackhi_ps(a[k], a[k + 1]);
  }
  for (int k = 0; k < 16; k += 4) {
    a[k] = _mm512_shuffle_ps(b[k], b[k + 2], 0x44);
    a[k + 1] = _mm512_shuffle_ps(b[k], b[k + 2], 0xEE);
    a[k + 2] = _mm512_shuffle_ps(b[k + 1], b[k + 3], 0x44);
    a[k + 3] = _mm512_shuffle_ps(b[k + 1], b[k + 3], 0xEE);
  }
  for (int k = 0; k < 4; ++k) {  // a[4 * n + k] holds column 4 * q + k of rows 4 * n on in its quarter q
    const __m512 even_low = _mm512_shuffle_f32x4(a[k], a[4 + k], 0x88),
                 odd_low = _mm512_shuffle_f32x4(a[k], a[4 + k], 0xDD);
    const __m512 even_high = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0xDD);
    _mm512_store_ps(to + k * kTokenTile, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
    _mm512_store_ps(to + (4 + k) * kTokenTile, _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
    _mm512_store_ps(to + (8 + k) * kTokenTile, _mm512_shuffle_f32x4(even_low, even_high, 0xDD));
    _mm512_store_ps(to + (12 + k) * kTokenTile, _mm512_shuffle_f32x4(odd_low, odd_high, 0xDD));
  }
}
#include "token_tile_loops.h"
}  // namespace avx512
#include "target/end.h"
constexpr Variants kFill{&plain::fill_any, &avx2::fill_any, &avx512::fill_any};
constexpr Variants kSums{&plain::sums_any, &avx2::sums_any, &avx512::sums_any};
#else
constexpr Variants<decltype(&plain::fill_any)> kFill{&plain::fill_any, nullptr, nullptr};
constexpr Variants<decltype(&plain::sums_any)> kSums{&plain::sums_any, nullptr, nullptr};
#endif

}  // namespace

void fill_panel(const TokenTile& tile, const int32_t* feature, int64_t count, float* panel) {
  kFill.chosen()(tile, feature, count, panel);
}

void sum_products(const PanelEntry* entry, int64_t count, const float* rows, int32_t first_row, const float* columns,
                  int lanes, float* sum) {
  kSums.chosen()(entry, count, rows, first_row, columns, lanes, sum);
}

}  // namespace mist::cpu
