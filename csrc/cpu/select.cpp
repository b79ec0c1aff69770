// select: the positions of the k largest scores of each tensor, ties by lowest position, ascending.
//
// A strided sample gives a bound a little below the k-th largest score. One pass over the scores keeps what reaches it
// (the survivors, slightly more than k), and the exact k-th value is searched among those. Where the sample misled and
// fewer than k survive, the pass is repeated with a lower bound; the last one lets everything through. The result
// does not depend on the sample or the number of threads.
#include <torch/csrc/stable/library.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../arguments.h"
#include "pieces.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 16;
constexpr int64_t kSample = 1 << 13;

// Bit i is set unless score[i] < bound: a NaN survives every bound, so it is sure to be found.
uint64_t reach(const float* score, float bound) {
  uint64_t bits = 0;
#if defined(__x86_64__)
  const __m128 wide = _mm_set1_ps(bound);
  for (int k = 0; k < 64; k += 4)
    bits |= static_cast<uint64_t>(_mm_movemask_ps(_mm_cmpnlt_ps(_mm_loadu_ps(score + k), wide))) << k;
#else
  for (int k = 0; k < 64; ++k) bits |= static_cast<uint64_t>(!(score[k] < bound)) << k;
#endif
  return bits;
}

struct Survivors {
  std::vector<int32_t> position;
  std::vector<float> score;
  int64_t nan = -1;  // position of the first NaN
};

Survivors survivors(const SelectTensor& tensor, float bound, int64_t begin, int64_t end) {
  thread_local std::vector<int32_t> position(kPiece);
  size_t count = 0;
  int64_t at = begin;
  for (; at + 64 <= end; at += 64)
    for (uint64_t bits = reach(tensor.score + at, bound); bits != 0; bits &= bits - 1)
      position[count++] = static_cast<int32_t>(at + std::countr_zero(bits));
  for (; at < end; ++at)
    if (!(tensor.score[at] < bound)) position[count++] = static_cast<int32_t>(at);
  Survivors found{{position.begin(), position.begin() + static_cast<int64_t>(count)}, std::vector<float>(count)};
  for (size_t s = 0; s < count; ++s) {
    found.score[s] = tensor.score[found.position[s]];
    if (std::isnan(found.score[s]) && found.nan < 0) found.nan = found.position[s];
  }
  return found;
}

// 0 to stride - 1, spread by the golden ratio: a fixed stride that divides a matrix's width would sample few columns.
int64_t jitter(int64_t sample, int64_t stride) {
  return static_cast<int64_t>((uint64_t{static_cast<uint32_t>(sample) * 0x9E3779B9u} * static_cast<uint64_t>(stride)) >>
                              32);
}

float sampled_bound(const SelectTensor& tensor, double margin) {
  const int64_t count = std::min(tensor.size, kSample);
  const double expected = static_cast<double>(count) * static_cast<double>(tensor.k) / static_cast<double>(tensor.size);
  const auto rank = static_cast<int64_t>(std::ceil(expected + margin * (std::sqrt(expected) + 2)));
  if (rank >= count) return -std::numeric_limits<float>::infinity();
  const int64_t stride = tensor.size / count;
  std::vector<float> sample;
  for (int64_t s = 0; s < count; ++s) {
    const float score = tensor.score[s * stride + jitter(s, stride)];
    if (!std::isnan(score)) sample.push_back(score);
  }
  if (rank >= static_cast<int64_t>(sample.size())) return -std::numeric_limits<float>::infinity();
  std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>());
  return sample[static_cast<size_t>(rank)];
}

// The k best of all survivors, in ascending order of position.
void write_best(const Survivors* piece, size_t pieces, int64_t k, int32_t* index) {
  std::vector<float> score;
  for (size_t p = 0; p < pieces; ++p) score.insert(score.end(), piece[p].score.begin(), piece[p].score.end());
  std::nth_element(score.begin(), score.begin() + (k - 1), score.end(), std::greater<>());
  const float kth = score[static_cast<size_t>(k - 1)];
  // nth_element leaves the larger ones in front of the k-th, equal ones on both sides.
  int64_t ties = std::count(score.begin(), score.begin() + k, kth);
  for (size_t p = 0; p < pieces; ++p)
    for (size_t s = 0; s < piece[p].score.size(); ++s)
      if (piece[p].score[s] > kth || (piece[p].score[s] == kth && ties-- > 0)) *index++ = piece[p].position[s];
}

TensorList select_cpu(TensorList score, std::vector<int64_t> k) {
  const auto tensors = check_select(score, k);
  std::vector<std::vector<Survivors>> found(tensors.size());  // tensor, piece
  std::vector<size_t> open(tensors.size());                   // tensors that have fewer than k survivors so far
  for (size_t t = 0; t < tensors.size(); ++t) open[t] = t;
  for (double margin = 4; !open.empty(); margin *= 16) {
    std::vector<float> bound(open.size());
    torch::stable::parallel_for(0, static_cast<int64_t>(open.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto o = static_cast<size_t>(begin); o < static_cast<size_t>(end); ++o) {
        const SelectTensor& tensor = tensors[open[o]];
        bound[o] = tensor.k == 0 ? std::numeric_limits<float>::infinity() : sampled_bound(tensor, margin);
        found[open[o]].assign(static_cast<size_t>((tensor.size + kPiece - 1) / kPiece), {});
      }
    });
    for_each_piece(
        open, kPiece, [&](size_t t) { return tensors[t].size; },
        [&](size_t o, int64_t begin, int64_t end) {
          found[open[o]][static_cast<size_t>(begin / kPiece)] = survivors(tensors[open[o]], bound[o], begin, end);
        });
    std::erase_if(open, [&](size_t t) {
      int64_t survived = 0;
      for (const Survivors& piece : found[t]) survived += static_cast<int64_t>(piece.score.size());
      return survived >= tensors[t].k;
    });
  }
  for (size_t t = 0; t < tensors.size(); ++t)
    for (const Survivors& piece : found[t])
      if (piece.nan >= 0) fail_nan("select", t, piece.nan);

  TensorList index;
  std::vector<int32_t*> destination;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const int64_t size[] = {tensors[t].k};
    index.push_back(torch::stable::new_empty(score[t], {size, 1}, torch::headeronly::ScalarType::Int));
    destination.push_back(static_cast<int32_t*>(index[t].mutable_data_ptr()));
  }
  torch::stable::parallel_for(0, static_cast<int64_t>(tensors.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t)
      if (tensors[t].k > 0) write_best(found[t].data(), found[t].size(), tensors[t].k, destination[t]);
  });
  return index;
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) { m.impl("select", TORCH_BOX(&mist::cpu::select_cpu)); }
