// What the ops on selected entries check alike of one tensor: its index, its codes, and what it is drawn by.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "../arguments.h"
#include "checker.h"

namespace mist {

// The index of one tensor, and through `selected` how many entries are selected.
inline const int32_t* checked_index(Checker& checker, Name name, const std::optional<Tensor>& index, int64_t size,
                                    int64_t& selected) {
  selected = size;
  if (!index) return nullptr;
  checker.placed(name, *index);
  checker.typed(name, *index, ScalarType::Int);
  selected = index->numel();
  checker.require(selected <= size, name, " has ", selected, " entries, more than the tensor it points into, ", size);
  checker.uses(name, *index, false);
  return static_cast<const int32_t*>(index->const_data_ptr());
}

inline const uint8_t* checked_codes(Checker& checker, const OptionalTensorList& scale_code, size_t t,
                                    int64_t selected) {
  if (scale_code.empty() || !scale_code[t]) return nullptr;
  const Name name{"scale_code", static_cast<int64_t>(t)};
  const auto& code = scale_code[t];
  checker.placed(name, *code);
  checker.typed(name, *code, ScalarType::Byte);
  checker.sized(name, *code, selected, "one for each selected entry");
  checker.uses(name, *code, false);
  return static_cast<const uint8_t*>(code->const_data_ptr());
}

constexpr int64_t kLongestList = int64_t{1} << 31;

// What one tensor is drawn by; its selected entries are counted already.
template <class Requiring>
void check_listed(const Requiring& checker, size_t t, const std::vector<int64_t>& first,
                  const std::vector<int64_t>& ordinal, Listed& list) {
  checker.require(ordinal[t] >= 0 && ordinal[t] <= std::numeric_limits<uint32_t>::max(), "ordinal[", t, "] is ",
                  ordinal[t], ", expected 0 to 4294967295");
  list.ordinal = static_cast<uint32_t>(ordinal[t]);
  if (first.empty()) return;
  const int64_t last = kLongestList - list.selected;
  checker.require(first[t] >= 0 && first[t] <= last, "first[", t, "] is ", first[t], ", expected 0 to ", last,
                  ", so that its ", list.selected, " entries end within ", kLongestList);
  list.first = static_cast<uint32_t>(first[t]);
}

}  // namespace mist
