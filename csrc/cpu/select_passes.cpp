// What is chosen is written without a branch, which could not be predicted: all lanes of a register, those that are
// chosen first, and the next register's over the rest.
#include "select_passes.h"

#include <array>
#include <bit>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa.h"

namespace mist::cpu {
namespace {

namespace plain {
constexpr int64_t kLanes = 1;
inline unsigned above(const float* from, float bound) { return !(*from <= bound); }
template <class T>
inline void put(unsigned, const T* from, T* to) {
  *to = *from;
}
inline void put_places(unsigned, int32_t first, int32_t* to) { *to = first; }
#include "select_loops.h"
}  // namespace plain
#if defined(__x86_64__)
// The numbers of the lanes that are set, one a byte, for each set of eight.
constexpr auto kNumbers = [] {
  std::array<uint64_t, 256> numbers{};
  for (unsigned set = 0; set < 256; ++set)
    for (unsigned lane = 8; lane-- > 0;)
      if (set >> lane & 1) numbers[set] = numbers[set] << 8 | lane;
  return numbers;
}();

#include "target/avx2_begin.h"
namespace avx2 {
constexpr int64_t kLanes = 8;
inline unsigned above(const float* from, float bound) {
  const __m256 holds = _mm256_cmp_ps(_mm256_loadu_ps(from), _mm256_set1_ps(bound), _CMP_NLE_UQ);
  return static_cast<unsigned>(_mm256_movemask_ps(holds));
}
inline __m256i numbers(unsigned lanes) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kNumbers[lanes])));
}
inline void put(unsigned lanes, const void* from, void* to) {
  const __m256i all = _mm256_loadu_si256(static_cast<const __m256i*>(from));
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(all, numbers(lanes)));
}
inline void put_places(unsigned lanes, int32_t first, int32_t* to) {
  const __m256i places = _mm256_add_epi32(_mm256_set1_epi32(first), numbers(lanes));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), places);
}
#include "select_loops.h"
}  // namespace avx2
#include "target/end.h"

#include "target/avx512_begin.h"
namespace avx512 {
constexpr int64_t kLanes = 16;
inline unsigned above(const float* from, float bound) {
  return _mm512_cmp_ps_mask(_mm512_loadu_ps(from), _mm512_set1_ps(bound), _CMP_NLE_UQ);
}
inline void put(unsigned lanes, __m512i all, void* to) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(lanes), all));
}
inline void put(unsigned lanes, const void* from, void* to) { put(lanes, _mm512_loadu_si512(from), to); }
inline void put_places(unsigned lanes, int32_t first, int32_t* to) {
  const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  put(lanes, _mm512_add_epi32(_mm512_set1_epi32(first), numbers), to);
}
#include "select_loops.h"
}  // namespace avx512
#include "target/end.h"
constexpr Variants kListAbove{&plain::list_above, &avx2::list_above, &avx512::list_above};
constexpr Variants kListBetween{&plain::list_between, &avx2::list_between, &avx512::list_between};
constexpr Variants kKeepAbove{&plain::keep_above, &avx2::keep_above, &avx512::keep_above};
#else
constexpr Variants<decltype(&plain::list_above)> kListAbove{&plain::list_above, nullptr, nullptr};
constexpr Variants<decltype(&plain::list_between)> kListBetween{&plain::list_between, nullptr, nullptr};
constexpr Variants<decltype(&plain::keep_above)> kKeepAbove{&plain::keep_above, nullptr, nullptr};
#endif

}  // namespace

int64_t list_above(const float* score, int64_t begin, int64_t end, float bound, float* value, int32_t* position) {
  return kListAbove.chosen()(score, begin, end, bound, value, position);
}

Between list_between(const float* value, int64_t size, const Bounds& bounds, float* to) {
  return kListBetween.chosen()(value, size, bounds, to);
}

int64_t keep_above(const float* value, int64_t size, float bound, int32_t* position) {
  return kKeepAbove.chosen()(value, size, bound, position);
}

}  // namespace mist::cpu
