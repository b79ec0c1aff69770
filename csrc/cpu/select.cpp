// select: the positions of the k largest scores of each tensor, ties by lowest position, ascending.
//
// A sample of a tensor's scores gives a bound a little below the k-th largest. One pass over the tensor lists what is
// above that bound, and the exact cut is made in the list. A list that is too short has all that is above its bound:
// where that is the k-th score, its ties are added, else the sample misled and a lower bound is tried. The result
// depends neither on the sample nor on the number of threads.
#include <atomic>
#include <cmath>

#include "kernels.h"
#include "kth_largest.h"
#include "pieces.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 14;

// Scores and their positions, ascending. Its memory serves one tensor after another.
struct List {
  std::vector<float> score;
  std::vector<int32_t> position;
  int64_t size = 0;

  void make_room(int64_t count) {
    const auto needed = static_cast<size_t>(size + count);
    if (score.size() >= needed) return;
    score.resize(needed);
    position.resize(needed);
  }

  void append(const List& other) {
    make_room(other.size);
    std::copy_n(other.score.begin(), other.size, score.begin() + size);
    std::copy_n(other.position.begin(), other.size, position.begin() + size);
    size += other.size;
  }

  // Where the first NaN was; -1: there is none.
  int64_t nan() const {
    int found = 0;
    for (int64_t i = 0; i < size; ++i) found |= score[static_cast<size_t>(i)] != score[static_cast<size_t>(i)];
    if (!found) return -1;
    const auto first = std::find_if(score.begin(), score.end(), [](float one) { return std::isnan(one); });
    return position[static_cast<size_t>(first - score.begin())];
  }
};

// Every thread that takes part lists what is above the bound in a part of the tensor.
void list_candidates(const SelectTensor& tensor, float bound, List& list) {
  const int64_t pieces = (tensor.size + kPiece - 1) / kPiece;
  std::vector<List> later(static_cast<size_t>(pieces));  // by their first piece
  list.size = 0;
  parallel_for(pieces, worth_a_thread(pieces, tensor.size), [&](int64_t first, int64_t last) {
    List& part = first == 0 ? list : later[static_cast<size_t>(first)];
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t begin = piece * kPiece, end = std::min(begin + kPiece, tensor.size);
      part.make_room(end - begin);
      part.size +=
          list_above(tensor.score, begin, end, bound, part.score.data() + part.size, part.position.data() + part.size);
    }
  });
  for (const List& part : later) list.append(part);
}

// Adds the first positions of scores that equal the bound to those above it, until there are k; whether there are.
bool add_ties(const SelectTensor& tensor, float bound, List& list) {
  const int64_t above = list.size;
  list.make_room(tensor.k - above);
  for (int64_t at = 0; at < tensor.size && list.size < tensor.k; ++at)
    if (tensor.score[at] == bound) list.position[static_cast<size_t>(list.size++)] = static_cast<int32_t>(at);
  const auto begin = list.position.begin();
  std::inplace_merge(begin, begin + above, begin + list.size);
  return list.size == tensor.k;
}

// Fills the index, unless there is a NaN; returns where that is, else -1.
int64_t select_from(const SelectTensor& tensor, int32_t* index, List& list) {
  Sample sample(tensor.score, tensor.size, tensor.k);
  for (double width = 3;; width *= 4) {
    float bound = sample.below_kth(width);
    list_candidates(tensor, bound, list);
    if (const int64_t nan = list.nan(); nan >= 0) return nan;
    if (list.size > tensor.k) {
      bound = kth_largest(list.score.data(), list.size, tensor.k + 1);  // the largest that may be left out
      list.size = keep_above(list.score.data(), list.size, bound, list.position.data());
    }
    if (list.size < tensor.k && !add_ties(tensor, bound, list)) continue;
    std::copy_n(list.position.begin(), tensor.k, index);
    return -1;
  }
}

}  // namespace

Nan select(const std::vector<SelectTensor>& tensors, const std::vector<int32_t*>& index) {
  int64_t entries = 0;
  for (const SelectTensor& tensor : tensors) entries += tensor.size;
  std::vector<int64_t> nan(tensors.size(), -1);
  const auto select_where = [&](size_t t, bool wanted, List& list) {
    const int64_t size = tensors[t].size;
    const bool large = 8 * size > entries;
    if (large == wanted && size > 0) nan[t] = select_from(tensors[t], index[t], list);
  };
  // All threads share a large tensor; of the others, each takes the next one when it is done with one.
  List list;
  for (size_t t = 0; t < tensors.size(); ++t) select_where(t, true, list);
  const auto count = static_cast<int64_t>(tensors.size());
  std::atomic<size_t> next = 0;
  parallel_for(count, worth_a_thread(count, entries), [&](int64_t, int64_t) {
    List own;
    for (size_t t = next++; t < tensors.size(); t = next++) select_where(t, false, own);
  });
  const auto found = std::find_if(nan.begin(), nan.end(), [](int64_t entry) { return entry >= 0; });
  return found == nan.end() ? Nan{} : Nan{found - nan.begin(), *found};
}

}  // namespace mist::cpu
