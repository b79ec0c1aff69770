// What the ops on selected entries check alike of one tensor: its index, its codes, and what it is drawn by.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "../arguments.h"
#include "checker.h"

namespace mist {

inline void check_within(const Requirements& checker, Name index, int32_t position, int64_t size) {
  checker.require(position >= 0 && position < size, index, " holds ", position,
                  ", expected ascending positions from 0 to ", size - 1, " in its tensor of ", size, " entries");
}

// The index of one tensor, and through `selected` how many entries are selected.
inline const int32_t* checked_index(Checker& checker, Name name, const std::optional<Tensor>& index, int64_t size,
                                    int64_t& selected) {
  selected = size;
  if (!index) return nullptr;
  checker.placed(name, *index);
  checker.typed(name, *index, ScalarType::Int);
  selected = index->numel();
  checker.require(selected <= size, name, " has ", selected, " entries, more than the tensor it points into, ", size);
  const auto* const entries = checker.read<int32_t>(name, *index, selected);
  // An index ascends, so its ends tell whether it still fits a tensor that may have changed since it was made.
  if (selected > 0 && checker.on_cpu()) {
    check_within(checker, name, entries[0], size);
    check_within(checker, name, entries[selected - 1], size);
  }
  return entries;
}

inline const uint8_t* checked_codes(Checker& checker, const OptionalTensorList& scale_code, size_t t,
                                    int64_t selected) {
  if (scale_code.empty() || !scale_code[t]) return nullptr;
  const Name name{"scale_code", static_cast<int64_t>(t)};
  const auto& code = scale_code[t];
  checker.placed(name, *code);
  checker.typed(name, *code, ScalarType::Byte);
  checker.sized(name, *code, selected, "one for each selected entry");
  return checker.read<uint8_t>(name, *code, selected);
}

constexpr int64_t kLongestList = int64_t{1} << 31;

// What one tensor is drawn by; its selected entries are counted already.
inline void check_listed(const Requirements& checker, Name first_name, int64_t first, Name ordinal_name,
                         int64_t ordinal, Listed& list) {
  checker.require(ordinal >= 0 && ordinal <= std::numeric_limits<uint32_t>::max(), ordinal_name, " is ", ordinal,
                  ", expected 0 to 4294967295");
  const int64_t last = kLongestList - list.selected;
  checker.require(first >= 0 && first <= last, first_name, " is ", first, ", expected 0 to ", last, ", so that its ",
                  list.selected, " entries end within ", kLongestList);
  list.ordinal = static_cast<uint32_t>(ordinal);
  list.first = static_cast<uint32_t>(first);
}

inline void check_listed(const Requirements& checker, size_t t, const std::vector<int64_t>& first,
                         const std::vector<int64_t>& ordinal, Listed& list) {
  const auto i = static_cast<int64_t>(t);
  check_listed(checker, {"first", i}, first.empty() ? 0 : first[t], {"ordinal", i}, ordinal[t], list);
}

}  // namespace mist
