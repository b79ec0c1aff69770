// mask_: everything but the kept entries of a gradient becomes zero; a kept one is multiplied by its factor.
#include <torch/csrc/stable/library.h>

#include "keep.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 15;

// Zeroes the gaps between the kept entries of [begin, end) and reads nothing but those.
template <class Real>
void mask(const MaskTensor& tensor, const KeepRule& rule, const float* table, int64_t begin, int64_t end) {
  auto* const grad = static_cast<Real*>(tensor.grad);
  const int32_t* const index = tensor.index;
  // The positions in the selection that fall into this piece.
  int64_t first = begin, last = std::min(end, tensor.selected);  // an empty index has no memory, just as none
  if (index) {
    first = std::lower_bound(index, index + tensor.selected, begin) - index;
    last = std::lower_bound(index + first, index + tensor.selected, end) - index;
  }
  constexpr int64_t kBatch = 2048;
  int32_t kept[kBatch + kGroup];
  int64_t cleared = begin;
  for (int64_t at = first / kGroup * kGroup; at < last; at += kBatch) {
    const int count = kept_positions(rule, at, std::min(at + kBatch, last), kept);
    for (int k = 0; k < count; ++k) {
      const int32_t j = kept[k];
      if (j < first) continue;  // of the same group, but in the piece before
      const int64_t place = index ? index[j] : j;
      std::fill(grad + cleared, grad + place, Real(0.0f));
      if (tensor.code) grad[place] = static_cast<Real>(static_cast<float>(grad[place]) * table[tensor.code[j]]);
      cleared = place + 1;
    }
  }
  std::fill(grad + cleared, grad + end, Real(0.0f));
}

void mask_cpu(TensorList grad, OptionalTensorList index, OptionalTensorList scale_code, std::optional<Tensor> table,
              std::vector<int64_t> ordinal, int64_t threshold, int64_t seed, Tensor step) {
  const auto tensors = check_mask(grad, index, scale_code, ordinal);
  const DeviceScalars scalars =
      check_scalars("mask_", grad[0], scale_code, table, step, std::nullopt, std::nullopt, std::nullopt);
  const uint32_t bound = check_threshold("mask_", threshold);
  for_each_piece(
      tensors, kPiece, [](const MaskTensor& tensor) { return tensor.size; },
      [&](size_t t, int64_t begin, int64_t end) {
        const KeepRule rule{static_cast<uint64_t>(seed), static_cast<uint64_t>(*scalars.step), tensors[t].ordinal,
                            bound};
        with_dtype(tensors[t].dtype, [&](auto* type) {
          mask<std::remove_pointer_t<decltype(type)>>(tensors[t], rule, scalars.table, begin, end);
        });
      });
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) { m.impl("mask_", TORCH_BOX(&mist::cpu::mask_cpu)); }
