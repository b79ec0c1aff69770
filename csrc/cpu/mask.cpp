// mask_: everything but the kept entries of a gradient becomes zero; a kept one is multiplied by its factor.
#include <bit>

#include "descending.h"
#include "keep.h"
#include "kernels.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 17;

// Zeroes the gaps between the kept entries of [begin, end) and reads nothing but those.
template <class Real>
void clear_dropped(const MaskTensor& tensor, const Keeper& keeper, const float* table, int64_t begin, int64_t end) {
  auto* const grad = static_cast<Real*>(tensor.grad);
  const int32_t* const index = tensor.index;
  // The selected entries that fall into this piece.
  int64_t first = begin, last = std::min(end, tensor.selected);  // an empty index has no memory, just as none
  if (index) {
    first = std::lower_bound(index, index + tensor.selected, begin) - index;
    last = std::lower_bound(index + first, index + tensor.selected, end) - index;
  }
  first += tensor.first;
  last += tensor.first;
  int64_t cleared = begin;
  for (int64_t at = first / kWord * kWord; at < last; at += kWord) {
    for (uint64_t bits = keeper.kept(at, first, last); bits != 0; bits &= bits - 1) {
      const int64_t j = at + std::countr_zero(bits) - tensor.first;
      const int64_t place = index ? index[j] : j;
      std::fill(grad + cleared, grad + place, Real(0.0f));
      if (tensor.code) grad[place] = static_cast<Real>(static_cast<float>(grad[place]) * table[tensor.code[j]]);
      cleared = place + 1;
    }
  }
  std::fill(grad + cleared, grad + end, Real(0.0f));
}

}  // namespace

int64_t find_descending(const std::vector<MaskTensor>& tensors) { return first_descending(tensors); }

void mask(const std::vector<MaskTensor>& tensors, const Draw& draw, const DeviceScalars& scalars) {
  const auto step = static_cast<uint64_t>(*scalars.step);
  for_each_piece(
      tensors, kPiece, [](const MaskTensor& tensor) { return Range{0, tensor.size}; },
      [&](size_t t, int64_t begin, int64_t end) {
        const Keeper keeper({draw.seed, step, tensors[t].ordinal, draw.threshold});
        with_dtype(tensors[t].dtype, [&](auto* type) {
          using Real = std::remove_pointer_t<decltype(type)>;
          clear_dropped<Real>(tensors[t], keeper, scalars.table, begin, end);
        });
      });
}

}  // namespace mist::cpu
