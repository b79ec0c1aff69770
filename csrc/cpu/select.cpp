// select: the positions of the k largest scores of each tensor, ties by lowest position, ascending.
//
// A sample of the scores gives two bounds, one a little below the k-th largest score and one a little above. A first
// pass counts what reaches the upper one and lists the band in between, about 1 % of the scores, among which the k-th
// is then searched. A second pass writes the positions. Where the k-th lies outside the band, because of ties or since
// the sample misled, it is a bound itself or the first pass is repeated beyond that bound. The result depends
// neither on the sample nor on the number of threads.
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "isa.h"
#include "kernels.h"
#include "pieces.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 16;
constexpr int64_t kSample = 1 << 13;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Bounds {
  float lower;
  float upper;
};

struct BandCount {
  int64_t upper;  // scores that reach the upper bound
  int64_t band;   // scores between the bounds
};

namespace plain {
#if defined(__x86_64__)
inline uint64_t reach(const float* score, float bound) {
  const __m128 wide = _mm_set1_ps(bound);
  uint64_t bits = 0;
  for (int k = 0; k < 64; k += 4)
    bits |= static_cast<uint64_t>(_mm_movemask_ps(_mm_cmpnlt_ps(_mm_loadu_ps(score + k), wide))) << k;
  return bits;
}
inline uint64_t exceed(const float* score, float bound) {
  const __m128 wide = _mm_set1_ps(bound);
  uint64_t bits = 0;
  for (int k = 0; k < 64; k += 4)
    bits |= static_cast<uint64_t>(_mm_movemask_ps(_mm_cmpnle_ps(_mm_loadu_ps(score + k), wide))) << k;
  return bits;
}
#else
inline uint64_t reach(const float* score, float bound) {
  uint64_t bits = 0;
  for (int k = 0; k < 64; ++k) bits |= static_cast<uint64_t>(!(score[k] < bound)) << k;
  return bits;
}
inline uint64_t exceed(const float* score, float bound) {
  uint64_t bits = 0;
  for (int k = 0; k < 64; ++k) bits |= static_cast<uint64_t>(!(score[k] <= bound)) << k;
  return bits;
}
#endif
#include "select_loops.h"
}  // namespace plain
#if defined(__x86_64__)
#include "target/avx2_begin.h"
namespace avx2 {
template <int kOperator>
inline uint64_t compare(const float* score, float bound) {
  const __m256 wide = _mm256_set1_ps(bound);
  uint64_t bits = 0;
  for (int k = 0; k < 64; k += 8) {
    const __m256 holds = _mm256_cmp_ps(_mm256_loadu_ps(score + k), wide, kOperator);
    bits |= static_cast<uint64_t>(_mm256_movemask_ps(holds)) << k;
  }
  return bits;
}
inline uint64_t reach(const float* score, float bound) { return compare<_CMP_NLT_UQ>(score, bound); }
inline uint64_t exceed(const float* score, float bound) { return compare<_CMP_NLE_UQ>(score, bound); }
#include "select_loops.h"
}  // namespace avx2
#include "target/end.h"

#include "target/avx512_begin.h"
namespace avx512 {
template <int kOperator>
inline uint64_t compare(const float* score, float bound) {
  const __m512 wide = _mm512_set1_ps(bound);
  uint64_t bits = 0;
  for (int k = 0; k < 64; k += 16)
    bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(_mm512_loadu_ps(score + k), wide, kOperator)) << k;
  return bits;
}
inline uint64_t reach(const float* score, float bound) { return compare<_CMP_NLT_UQ>(score, bound); }
inline uint64_t exceed(const float* score, float bound) { return compare<_CMP_NLE_UQ>(score, bound); }
#include "select_loops.h"
}  // namespace avx512
#include "target/end.h"
constexpr Variants kWriteBand{&plain::write_band, &avx2::write_band, &avx512::write_band};
constexpr Variants kWritePositions{&plain::write_positions, &avx2::write_positions, &avx512::write_positions};
#else
constexpr Variants<decltype(&plain::write_band)> kWriteBand{&plain::write_band, nullptr, nullptr};
constexpr Variants<decltype(&plain::write_positions)> kWritePositions{&plain::write_positions, nullptr, nullptr};
#endif

// 0 to stride - 1, spread by the golden ratio: a fixed stride that divides a matrix's width would sample few columns.
int64_t jitter(int64_t sample, int64_t stride) {
  return static_cast<int64_t>((uint64_t{static_cast<uint32_t>(sample) * 0x9E3779B9u} * static_cast<uint64_t>(stride)) >>
                              32);
}

// The scores at two ranks of a sample, `width` standard deviations below and above where the k-th score is expected.
Bounds sampled_bounds(const SelectTensor& tensor, double width) {
  const int64_t count = std::min(tensor.size, kSample);
  const int64_t stride = tensor.size / count;
  std::vector<float> sample;
  sample.reserve(static_cast<size_t>(count));
  for (int64_t s = 0; s < count; ++s) {
    const float score = tensor.score[s * stride + jitter(s, stride)];
    if (!std::isnan(score)) sample.push_back(score);
  }
  const double expected = static_cast<double>(count) * static_cast<double>(tensor.k) / static_cast<double>(tensor.size);
  const double margin = width * (std::sqrt(expected) + 1.5);
  Bounds bounds{-kInfinity, kInfinity};
  auto end = sample.end();
  const auto at_rank = [&](double rank, float& bound) {
    if (rank < 0 || rank >= static_cast<double>(end - sample.begin())) return;
    const auto place = sample.begin() + static_cast<int64_t>(rank);
    std::nth_element(sample.begin(), place, end, std::greater<>());
    bound = *place;
    end = place;  // the larger ones lie before it
  };
  at_rank(expected + margin, bounds.lower);
  at_rank(expected - margin, bounds.upper);
  return bounds;
}

struct Piece {
  int64_t upper = 0;              // scores that reach the upper bound, a NaN among them
  std::vector<float> band;        // scores between the bounds
  int64_t larger = 0, equal = 0;  // scores above the k-th, and scores that equal it
  int64_t ties = 0;               // how many of those are chosen
  int64_t offset = 0;             // of the piece's first position in the index
  bool has_nan = false;
};

struct Search {
  const SelectTensor* tensor;
  int32_t* index;
  double width = 3;  // a wider band costs every call, a k-th score outside of it a second pass over one tensor
  Bounds bounds{};
  std::vector<Piece> pieces;
  float kth = kInfinity;
  bool found = false;
};

template <class Count>
int64_t total(const Search& search, const Count& count) {
  return std::accumulate(search.pieces.begin(), search.pieces.end(), int64_t{0},
                         [&](int64_t sum, const Piece& piece) { return sum + count(piece); });
}

void list_band(Search& search, int64_t begin, int64_t end) {
  thread_local std::vector<float> band(kPiece);
  const BandCount count = kWriteBand.chosen()(search.tensor->score, begin, end, search.bounds, band.data());
  Piece& piece = search.pieces[static_cast<size_t>(begin / kPiece)];
  piece.upper = count.upper;
  piece.band.assign(band.begin(), band.begin() + count.band);
}

// Finds the k-th score if it lies in the band; else takes the bound that it lies beyond or equals.
void search_band(Search& search) {
  const int64_t k = search.tensor->k;
  const int64_t upper = total(search, [](const Piece& piece) { return piece.upper; });
  const int64_t band = total(search, [](const Piece& piece) { return static_cast<int64_t>(piece.band.size()); });
  search.found = k > upper && k <= upper + band;
  if (!search.found) {
    search.kth = k <= upper ? search.bounds.upper : search.bounds.lower;
    return;
  }
  std::vector<float> scores;
  scores.reserve(static_cast<size_t>(band));
  for (const Piece& piece : search.pieces) scores.insert(scores.end(), piece.band.begin(), piece.band.end());
  const auto place = scores.begin() + (k - upper - 1);
  std::nth_element(scores.begin(), place, scores.end(), std::greater<>());
  search.kth = *place;
  for (Piece& piece : search.pieces) {
    piece.larger = piece.upper;
    piece.equal = 0;
    for (const float score : piece.band) {
      piece.larger += score > search.kth;
      piece.equal += score == search.kth;
    }
    piece.band = {};
  }
}

// Where search_band took a bound: what lies above it and what equals it.
void count_beyond(Search& search, int64_t begin, int64_t end) {
  Piece& piece = search.pieces[static_cast<size_t>(begin / kPiece)];
  piece.larger = piece.equal = 0;
  for (int64_t at = begin; at < end; ++at) {
    piece.larger += search.tensor->score[at] > search.kth;
    piece.equal += search.tensor->score[at] == search.kth;
    piece.has_nan |= std::isnan(search.tensor->score[at]);
  }
}

// Whether the bound is the k-th score; else the next pass looks beyond it.
void settle_bound(Search& search) {
  const int64_t k = search.tensor->k;
  const int64_t larger = total(search, [](const Piece& piece) { return piece.larger; });
  const int64_t equal = total(search, [](const Piece& piece) { return piece.equal; });
  search.found = k == 0 || (larger < k && k <= larger + equal);
  if (search.found) return;
  search.width *= 8;
  const Bounds wider = sampled_bounds(*search.tensor, search.width);
  if (k <= larger) {
    search.bounds = {search.kth, wider.upper > search.kth ? wider.upper : kInfinity};
  } else {
    search.bounds = {wider.lower < search.kth ? wider.lower : -kInfinity, search.kth};
  }
}

// Shares the ties out to the pieces in order, and gives each its place in the index.
void lay_out(Search& search) {
  int64_t ties = search.tensor->k - total(search, [](const Piece& piece) { return piece.larger; });
  int64_t offset = 0;
  for (Piece& piece : search.pieces) {
    piece.ties = std::min(piece.equal, ties);
    piece.offset = offset;
    ties -= piece.ties;
    offset += piece.larger + piece.ties;
  }
}

bool has_nan(const Search& search) {
  return std::any_of(search.pieces.begin(), search.pieces.end(), [](const Piece& piece) { return piece.has_nan; });
}

Nan first_nan(const std::vector<SelectTensor>& tensors) {
  for (size_t t = 0; t < tensors.size(); ++t) {
    const SelectTensor& tensor = tensors[t];
    const float* const end = tensor.score + tensor.size;
    const float* const found = std::find_if(tensor.score, end, [](float score) { return std::isnan(score); });
    if (found != end) return {static_cast<int64_t>(t), found - tensor.score};
  }
  return {};
}

void for_each(const std::vector<Search*>& searches, void (*body)(Search&)) {
  int64_t entries = 0;
  for (const Search* search : searches) entries += search->tensor->size;
  const auto count = static_cast<int64_t>(searches.size());
  parallel_for(count, worth_a_thread(count, entries), [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) body(*searches[static_cast<size_t>(s)]);
  });
}

template <class Body>
void for_each_piece_of(const std::vector<Search*>& searches, const Body& body) {
  for_each_piece(
      searches, kPiece, [](const Search* search) { return Range{0, search->tensor->size}; },
      [&](size_t s, int64_t begin, int64_t end) { body(*searches[s], begin, end); });
}

}  // namespace

Nan select(const std::vector<SelectTensor>& tensors, const std::vector<int32_t*>& index) {
  std::vector<Search> searches(tensors.size());
  std::vector<Search*> all;
  for (size_t t = 0; t < tensors.size(); ++t) {
    searches[t].tensor = &tensors[t];
    searches[t].index = index[t];
    searches[t].pieces.resize(static_cast<size_t>((tensors[t].size + kPiece - 1) / kPiece));
    if (tensors[t].size > 0) all.push_back(&searches[t]);
  }
  for_each(all, [](Search& search) { search.bounds = sampled_bounds(*search.tensor, search.width); });
  for (std::vector<Search*> open = all; !open.empty();) {
    for_each_piece_of(open, list_band);
    for_each(open, search_band);
    std::erase_if(open, [](const Search* search) { return search->found; });
    for_each_piece_of(open, count_beyond);
    if (std::any_of(open.begin(), open.end(), [](const Search* search) { return has_nan(*search); }))
      return first_nan(tensors);
    for_each(open, settle_bound);
    std::erase_if(open, [](const Search* search) { return search->found; });
  }
  for_each(all, lay_out);

  for_each_piece_of(all, [](Search& search, int64_t begin, int64_t end) {
    thread_local std::vector<int32_t> position(kPiece);
    Piece& piece = search.pieces[static_cast<size_t>(begin / kPiece)];
    if (piece.larger + piece.ties == 0) return;
    const int64_t count = kWritePositions.chosen()(search.tensor->score, begin, end, search.kth, piece.ties,
                                                   position.data(), piece.has_nan);
    std::copy_n(position.begin(), count, search.index + piece.offset);
  });
  if (std::any_of(all.begin(), all.end(), [](const Search* search) { return has_nan(*search); }))
    return first_nan(tensors);
  return {};
}

}  // namespace mist::cpu
