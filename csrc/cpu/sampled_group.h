// A group of kept entries of one weight that sampled_weight_grad_ works on together: few enough that its sums and the
// features that they need fit a cache, as many as there may be to need each feature once.
#pragma once

#include <cstdint>
#include <vector>

#include "../tensors.h"
#include "token_tile.h"

namespace mist::cpu {

// Which features of an operand the slots of a panel hold, ascending.
class PanelFeatures {
 public:
  // Gives each of the features that entries need a slot; `features` are theirs, one an entry, and become slots.
  void place(std::vector<int32_t>& features);

  const int32_t* of_slots() const { return features_.data(); }
  int64_t slots() const { return static_cast<int64_t>(features_.size()); }

 private:
  std::vector<int32_t> features_;
};

// Neighbouring pieces of a weight's selection list.
struct EntryGroup {
  const LinearTensor* tensor;
  Range positions;
  int64_t place;  // of its first entry in the packed vector
  int64_t count;  // of entries
  std::vector<PanelEntry> entries;
  PanelFeatures rows;
  PanelFeatures columns;

  // Draws the entries and places what they need: what the group is made of, beside its size.
  void list(const Draw& draw, int64_t step);
};

// Cuts all lists into groups that are not listed yet. None of them is empty.
std::vector<EntryGroup> entry_groups(const std::vector<LinearTensor>& tensors, const int64_t* places);

}  // namespace mist::cpu
