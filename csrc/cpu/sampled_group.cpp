#include "sampled_group.h"

#include <algorithm>
#include <numeric>

#include "keep.h"
#include "kept.h"

namespace mist::cpu {
namespace {

constexpr int64_t kMostEntries = 16384;  // of a group, and of a panel's features: 4 MB
constexpr int64_t kFewestEntries = kPlacePiece;
constexpr int64_t kWantedTasks = 16;  // tiles of groups: where tokens are few, more groups keep more threads busy

// How many entries a group should have at most: pieces are not cut.
int64_t most_entries(const LinearTensor& tensor, int64_t kept) {
  const int64_t balanced = kept * token_tiles(tensor.tokens) / kWantedTasks;
  return std::clamp(balanced, kFewestEntries, kMostEntries);
}

}  // namespace

void PanelFeatures::place(std::vector<int32_t>& features) {
  const auto [least, most] = std::minmax_element(features.begin(), features.end());
  const int64_t span = int64_t{*most} - *least + 1;
  if (span <= std::min(2 * static_cast<int64_t>(features.size()), kMostEntries)) {
    // Most are needed: all of them, side by side, are faster to load than those alone.
    const int32_t begin = *least;
    features_.resize(static_cast<size_t>(span));
    std::iota(features_.begin(), features_.end(), begin);
    for (int32_t& feature : features) feature -= begin;
    return;
  }
  features_ = features;
  std::sort(features_.begin(), features_.end());
  features_.erase(std::unique(features_.begin(), features_.end()), features_.end());
  for (int32_t& feature : features)
    feature = static_cast<int32_t>(std::lower_bound(features_.begin(), features_.end(), feature) - features_.begin());
}

void EntryGroup::list(const Draw& draw, int64_t step) {
  const Keeper keeper({draw.seed, static_cast<uint64_t>(step), tensor->ordinal, draw.threshold});
  std::vector<int32_t> row, column;
  row.reserve(static_cast<size_t>(count));
  column.reserve(static_cast<size_t>(count));
  const auto width = static_cast<int32_t>(tensor->inputs);
  for (int64_t piece = 0; piece < cells(positions, kKeptPiece); ++piece) {
    const Range part = cell(positions, kKeptPiece, piece);
    for_each_kept(
        *tensor, tensor->index, keeper, part.begin, part.end, [](int32_t) {},
        [&](int, int32_t, int32_t place) {
          row.push_back(place / width);
          column.push_back(place % width);
        });
  }
  rows.place(row);
  columns.place(column);
  entries.resize(row.size());
  for (size_t k = 0; k < entries.size(); ++k) entries[k] = {row[k], column[k]};
}

std::vector<EntryGroup> entry_groups(const std::vector<LinearTensor>& tensors, const int64_t* places) {
  std::vector<EntryGroup> groups;
  for (const LinearTensor& tensor : tensors) {
    const Range all = tensor.positions();
    const int64_t pieces = cells(all, kPlacePiece);
    if (pieces == 0 || tensor.tokens == 0) continue;
    const int64_t* const place = places + tensor.piece;
    const int64_t most = most_entries(tensor, place[pieces] - place[0]);
    for (int64_t begin = 0, end; begin < pieces; begin = end) {
      for (end = begin + 1; end < pieces && place[end + 1] - place[begin] <= most;) ++end;
      const int64_t count = place[end] - place[begin];
      if (count == 0) continue;
      const Range range{cell(all, kPlacePiece, begin).begin, cell(all, kPlacePiece, end - 1).end};
      groups.push_back({&tensor, range, place[begin], count, {}, {}, {}});
    }
  }
  return groups;
}

}  // namespace mist::cpu
