// pack_: gathers the gradients that a step keeps into one vector.
#include "keep.h"
#include "kept.h"
#include "kernels.h"
#include "packed.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
void pack(const std::vector<PackTensor>& tensors, const Draw& draw, int64_t step, const PackedOutput& packed) {
  for_each_piece(tensors, kKeptPiece, positions, [&](size_t t, int64_t begin, int64_t end) {
    const PackTensor& tensor = tensors[t];
    const Keeper keeper({draw.seed, static_cast<uint64_t>(step), tensor.ordinal, draw.threshold});
    with_dtype(tensor.dtype, [&](auto* type) {
      using Real = std::remove_pointer_t<decltype(type)>;
      const auto* const grad = static_cast<const Real*>(tensor.grad);
      with_packed(packed, tensor, begin, [&](auto* first) {
        using Wire = std::remove_pointer_t<decltype(first)>;
        for_each_kept(
            tensor, tensor.index, keeper, begin, end, [&](int32_t place) { __builtin_prefetch(grad + place, 0); },
            [&](int number, int32_t, int32_t place) {
              first[number] = static_cast<Wire>(static_cast<float>(grad[place]));
            });
      });
    });
  });
}

}  // namespace mist::cpu
