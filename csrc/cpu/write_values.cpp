// write_values_: replaces entries by value, where the bits that are there are the expected ones.
//
// Each piece of a tensor is compared and written while it is in the cache, so memory is passed once. Where something
// else is found, the piece is restored at once, and all other pieces at the end.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <tuple>

#include "descending.h"
#include "kernels.h"
#include "pieces.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 16;  // positions; of four bytes each, a piece and the next fit into the second cache
constexpr int64_t kBlock = 256;      // entries that are compared together
constexpr int64_t kStep = 16;        // entries between two looks ahead
constexpr int64_t kLine = 64;        // bytes

// The entries of a replacement that lie in [begin, end).
Range within(const Replacement& made, int64_t begin, int64_t end) {
  if (made.selected == 0) return {0, 0};
  if (!made.index) return {begin, end};
  const int32_t* const stop = made.index + made.selected;
  const int32_t* const first = std::lower_bound(made.index, stop, begin);
  return {first - made.index, std::lower_bound(first, stop, end) - made.index};
}

// Brings in the memory behind a piece while the piece is worked on, line after line where most lines are needed: in
// order, memory gives more than half as much again.
class Ahead {
 public:
  Ahead(const void* begin, const void* end, int64_t entries)
      : next_(static_cast<const char*>(begin)), end_(static_cast<const char*>(end)) {
    const int64_t bytes = end_ - next_;
    if (entries * kLine * 4 < bytes) end_ = next_;  // too few to bring in all
    step_ = bytes / (entries / kStep + 1) / kLine * kLine + kLine;
  }

  void look() {
    for (const char* const stop = end_ - next_ < step_ ? end_ : next_ + step_; next_ < stop; next_ += kLine)
      __builtin_prefetch(next_, 1);
  }

 private:
  const char* next_;
  const char* end_;
  int64_t step_;
};

template <class Bits>
void put(Bits* param, const int32_t* index, const Range& entries, const Bits* values, Ahead* ahead = nullptr) {
  if (!index) {
    std::copy(values + entries.begin, values + entries.end, param + entries.begin);
    return;
  }
  for (int64_t j = entries.begin; j < entries.end;) {
    if (ahead) ahead->look();
    for (const int64_t stop = std::min(j + kStep, entries.end); j < stop; ++j) param[index[j]] = values[j];
  }
}

// Writes a block of at most kBlock entries; the first of them that is not what is expected, or -1. Then none is
// written.
template <class Bits>
int64_t exchange_block(Bits* param, const Replacement& made, const Range& block, Ahead& ahead) {
  const auto* const value = static_cast<const Bits*>(made.value);
  const auto* const expected = static_cast<const Bits*>(made.expected);
  Bits was[kBlock];
  Bits differs = 0;
  for (int64_t j = block.begin; j < block.end;) {
    ahead.look();
    for (const int64_t stop = std::min(j + kStep, block.end); j < stop; ++j) {
      Bits& entry = param[made.index[j]];
      was[j - block.begin] = entry;
      differs = static_cast<Bits>(differs | (entry ^ expected[j]));
      entry = value[j];
    }
  }
  if (differs == 0) return -1;
  for (int64_t j = block.begin; j < block.end; ++j) param[made.index[j]] = was[j - block.begin];
  return std::mismatch(was, was + (block.end - block.begin), expected + block.begin).first - was + block.begin;
}

// The first entry of the range that is not what is expected, or -1. Then none is written.
template <class Bits>
int64_t exchange(Bits* param, const Replacement& made, const Range& entries, Ahead& ahead) {
  const auto* const expected = static_cast<const Bits*>(made.expected);
  if (expected && !made.index) {
    const Bits *const there = param + entries.begin, *const stop = param + entries.end;
    const Bits* const other = std::mismatch(there, stop, expected + entries.begin).first;
    if (other != stop) return other - param;
  }
  if (!expected || !made.index) {
    put(param, made.index, entries, static_cast<const Bits*>(made.value), &ahead);
    return -1;
  }
  for (int64_t at = entries.begin; at < entries.end; at += kBlock) {
    const int64_t wrong = exchange_block(param, made, {at, std::min(at + kBlock, entries.end)}, ahead);
    if (wrong < 0) continue;
    put(param, made.index, {entries.begin, at}, expected);
    return wrong;
  }
  return -1;
}

template <class Body>
void with_bits(size_t itemsize, const Body& body) {
  switch (itemsize) {
    case 1: return body(static_cast<uint8_t*>(nullptr));
    case 2: return body(static_cast<uint16_t*>(nullptr));
    case 4: return body(static_cast<uint32_t*>(nullptr));
    default: return body(static_cast<uint64_t*>(nullptr));
  }
}

template <class Bits>
void restore(const WriteTensor& tensor, int64_t begin, int64_t end) {
  auto* const param = static_cast<Bits*>(tensor.param);
  for (const Replacement* made : {&tensor.then, &tensor.first})
    put(param, made->index, within(*made, begin, end), static_cast<const Bits*>(made->expected));
}

}  // namespace

int64_t find_descending(const std::vector<WriteTensor>& tensors) {
  std::vector<Replacement> lists;
  for (const WriteTensor& tensor : tensors) {
    lists.push_back(tensor.first);
    lists.push_back(tensor.then);
  }
  return first_descending(lists);
}

Mismatch write_values(const std::vector<WriteTensor>& tensors) {
  const auto whole = [](const WriteTensor& tensor) { return Range{0, tensor.size}; };
  std::vector<std::vector<uint8_t>> written;  // of each tensor's pieces
  for (const WriteTensor& tensor : tensors) written.emplace_back(cells(whole(tensor), kPiece));
  std::mutex lock;
  Mismatch found;
  const auto report = [&](const Mismatch& mismatch) {
    const std::lock_guard guard(lock);
    const auto order = [](const Mismatch& m) { return std::make_tuple(m.tensor, m.then, m.position); };
    if (found.tensor < 0 || order(mismatch) < order(found)) found = mismatch;
  };
  for_each_piece(tensors, kPiece, whole, [&](size_t t, int64_t begin, int64_t end) {
    const WriteTensor& tensor = tensors[t];
    const auto number = static_cast<int64_t>(t);
    with_bits(tensor.itemsize, [&](auto* type) {
      using Bits = std::remove_pointer_t<decltype(type)>;
      auto* const param = static_cast<Bits*>(tensor.param);
      const auto place = [](const Replacement& made, int64_t j) { return made.index ? made.index[j] : j; };
      const Range first = within(tensor.first, begin, end), then = within(tensor.then, begin, end);
      Ahead ahead(param + end, param + std::min(end + kPiece, tensor.size),
                  first.end - first.begin + then.end - then.begin);
      if (const int64_t j = exchange(param, tensor.first, first, ahead); j >= 0)
        return report({number, false, place(tensor.first, j)});
      if (const int64_t j = exchange(param, tensor.then, then, ahead); j >= 0) {
        put(param, tensor.first.index, first, static_cast<const Bits*>(tensor.first.expected));
        return report({number, true, place(tensor.then, j)});
      }
      written[t][static_cast<size_t>(begin / kPiece)] = 1;
    });
  });
  if (found.tensor < 0) return found;
  for_each_piece(tensors, kPiece, whole, [&](size_t t, int64_t begin, int64_t end) {
    if (!written[t][static_cast<size_t>(begin / kPiece)]) return;
    with_bits(tensors[t].itemsize,
              [&](auto* type) { restore<std::remove_pointer_t<decltype(type)>>(tensors[t], begin, end); });
  });
  return found;
}

}  // namespace mist::cpu
