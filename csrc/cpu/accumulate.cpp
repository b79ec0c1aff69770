// accumulate_: score += scale * grad^2, frozen entries left alone. One pass over all tensors.
#include <torch/csrc/stable/library.h>

#include <cstring>

#include "../rules.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 15;

template <class Grad>
void accumulate(float* score, const Grad* grad, int64_t count, float scale) {
  for (int64_t k = 0; k < count; ++k) score[k] = accumulated(score[k], static_cast<float>(grad[k]), scale);
}

// Few entries are frozen (0.05 % a task), so most words of 64 bits are zero and their entries take the fast loop.
template <class Grad>
void accumulate_unfrozen(float* score, const Grad* grad, const uint8_t* frozen, int64_t count, float scale) {
  for (int64_t at = 0; at < count; at += 64) {
    const int64_t entries = std::min<int64_t>(count - at, 64);
    uint64_t bits = 0;
    std::memcpy(&bits, frozen + at / 8, static_cast<size_t>((entries + 7) / 8));
    if (bits == 0) {
      accumulate(score + at, grad + at, entries, scale);
      continue;
    }
    for (int64_t k = at; k < at + entries; ++k, bits >>= 1)
      if (!(bits & 1)) score[k] = accumulated(score[k], static_cast<float>(grad[k]), scale);
  }
}

void accumulate_cpu(TensorList score, TensorList grad, OptionalTensorList frozen, double scale) {
  const auto tensors = check_accumulate(score, grad, frozen);
  const auto factor = static_cast<float>(scale);
  for_each_piece(
      tensors, kPiece, [](const AccumulateTensor& tensor) { return tensor.size; },
      [&](size_t t, int64_t begin, int64_t end) {
        const AccumulateTensor& tensor = tensors[t];
        with_dtype(tensor.dtype, [&](auto* type) {
          const auto* values = static_cast<const std::remove_pointer_t<decltype(type)>*>(tensor.grad) + begin;
          if (tensor.frozen) {
            accumulate_unfrozen(tensor.score + begin, values, tensor.frozen + begin / 8, end - begin, factor);
          } else {
            accumulate(tensor.score + begin, values, end - begin, factor);
          }
        });
      });
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) { m.impl("accumulate_", TORCH_BOX(&mist::cpu::accumulate_cpu)); }
