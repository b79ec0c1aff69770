// write_values_: replaces entries by value, where the bits that are there are the expected ones.
//
// A tensor is gone through in blocks that stay in the first cache while both replacements are compared and made in
// them, and what lies a little ahead is brought in meanwhile, so each line passes once. Where something else is found,
// the piece is restored at once, and all other pieces at the end.
#include <algorithm>
#include <mutex>
#include <tuple>
#include <utility>

#include "descending.h"
#include "kernels.h"
#include "pieces.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 16;  // positions; one thread's at a time
constexpr int64_t kBlock = 1024;     // bytes
constexpr int64_t kAhead = 4;        // blocks: with more of them lines leave the first cache before they are needed
constexpr int64_t kNext = 64;        // entries of a list
constexpr int64_t kLine = 64;        // bytes

template <class Bits>
constexpr int64_t kBlockEntries = kBlock / static_cast<int64_t>(sizeof(Bits));

// The entries of a replacement that lie in [begin, end).
Range within(const Replacement& made, int64_t begin, int64_t end) {
  if (made.selected == 0) return {0, 0};
  if (!made.index) return {begin, end};
  const int32_t* const stop = made.index + made.selected;
  const int32_t* const first = std::lower_bound(made.index, stop, begin);
  return {first - made.index, std::lower_bound(first, stop, end) - made.index};
}

// The same for an end that few entries lie before.
Range from(const Replacement& made, int64_t entry, int64_t end) {
  if (!made.index) return {entry, std::min(end, made.selected)};
  Range found{entry, entry};
  while (found.end < made.selected && made.index[found.end] < end) ++found.end;
  return found;
}

// Brings in what the next block needs of a replacement's lists: the processor stops doing so by itself at each page.
void bring_in(const Replacement& made, int64_t entry, size_t itemsize) {
  if (!made.index) return;
  const int64_t ahead = std::min(entry + kNext, made.selected);
  __builtin_prefetch(made.index + ahead);
  for (const void* values : {made.value, made.expected})
    if (values) __builtin_prefetch(static_cast<const char*>(values) + ahead * static_cast<int64_t>(itemsize));
}

template <class Bits>
void put(Bits* param, const Replacement& made, const Range& entries, const void* from) {
  const auto* const values = static_cast<const Bits*>(from);
  if (!made.index) {
    std::copy(values + entries.begin, values + entries.end, param + entries.begin);
    return;
  }
  for (int64_t j = entries.begin; j < entries.end; ++j) param[made.index[j]] = values[j];
}

// The first of some entries that is not what is expected, or -1.
template <class Bits>
int64_t mismatch(const Bits* param, const Replacement& made, const Range& entries) {
  const auto* const expected = static_cast<const Bits*>(made.expected);
  if (!expected) return -1;
  Bits differs = 0;  // without a branch for each
  for (int64_t j = entries.begin; j < entries.end; ++j)
    differs = static_cast<Bits>(differs | (param[made.index ? made.index[j] : j] ^ expected[j]));
  if (differs == 0) return -1;
  int64_t j = entries.begin;
  while (param[made.index ? made.index[j] : j] == expected[j]) ++j;
  return j;
}

template <class Bits>
void restore(const WriteTensor& tensor, int64_t begin, int64_t end) {
  for (const Replacement* made : {&tensor.then, &tensor.first})
    put(static_cast<Bits*>(tensor.param), *made, within(*made, begin, end), made->expected);
}

// Makes both replacements in [begin, end), or none where something else is found; which of the two found it, or null,
// and the entry.
template <class Bits>
std::pair<const Replacement*, int64_t> exchange(const WriteTensor& tensor, int64_t begin, int64_t end) {
  auto* const param = static_cast<Bits*>(tensor.param);
  const Range first = within(tensor.first, begin, end), then = within(tensor.then, begin, end);
  const int64_t lines = (end - begin) * static_cast<int64_t>(sizeof(Bits)) / kLine;
  const bool most = (first.end - first.begin + then.end - then.begin) * 4 >= lines;  // are needed: bring in all
  int64_t done[] = {first.begin, then.begin};
  for (int64_t at = begin; at < end; at += kBlockEntries<Bits>) {
    const int64_t stop = std::min(at + kBlockEntries<Bits>, end);
    if (most) {
      const int64_t ahead = at + kAhead * kBlockEntries<Bits>;
      for (int64_t p = ahead; p < std::min(ahead + kBlockEntries<Bits>, tensor.size);
           p += kLine / static_cast<int64_t>(sizeof(Bits)))
        __builtin_prefetch(param + p, 1);
    }
    int64_t* next = done;
    for (const Replacement* made : {&tensor.first, &tensor.then}) {
      const Range entries = from(*made, *next, stop);
      bring_in(*made, entries.end, sizeof(Bits));
      if (const int64_t wrong = mismatch(param, *made, entries); wrong >= 0) {
        if (made == &tensor.then) put(param, tensor.first, within(tensor.first, at, stop), tensor.first.expected);
        restore<Bits>(tensor, begin, at);
        const int64_t earlier = mismatch(param, tensor.first, first);  // which is named before any of the second
        return earlier >= 0 ? std::pair{&tensor.first, earlier} : std::pair{made, wrong};
      }
      put(param, *made, entries, made->value);
      *next++ = entries.end;
    }
  }
  return {nullptr, -1};
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
    with_bits(tensor.itemsize, [&](auto* type) {
      const auto [made, entry] = exchange<std::remove_pointer_t<decltype(type)>>(tensor, begin, end);
      if (made)
        return report({static_cast<int64_t>(t), made == &tensor.then, made->index ? made->index[entry] : entry});
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
