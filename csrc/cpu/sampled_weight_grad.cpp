// sampled_weight_grad_: the kept entries of linear layers' weight gradients, one dot product over the tokens each.
#include "../token_sums.h"
#include "keep.h"
#include "kept.h"
#include "kernels.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {

void sampled_weight_grad(const std::vector<LinearTensor>& tensors, const Draw& draw, int64_t step, float* values,
                         const int64_t* places) {
  for_each_piece(tensors, kKeptPiece, positions, [&](size_t t, int64_t begin, int64_t end) {
    const LinearTensor& tensor = tensors[t];
    const Keeper keeper({draw.seed, static_cast<uint64_t>(step), tensor.ordinal, draw.threshold});
    float* const first = values + places[tensor.piece_of(begin)];
    with_dtype(tensor.dtype, [&](auto* type) {
      using Real = std::remove_pointer_t<decltype(type)>;
      const auto* const y = static_cast<const Real*>(tensor.grad_output);
      const auto* const x = static_cast<const Real*>(tensor.input);
      for_each_kept(
          tensor, tensor.index, keeper, begin, end, [](int32_t) {},
          [&](int number, int32_t, int32_t place) {
            const int64_t row = place / tensor.inputs, column = place % tensor.inputs;
            for (int64_t tile = 0; tile < token_tiles(tensor.tokens); ++tile) {
              float lane[kTokenLanes] = {};
              for (int k = 0; k < kTokenTile; ++k) {
                const int64_t token = tile * kTokenTile + k;
                if (token >= tensor.tokens) break;
                lane[k % kTokenLanes] += static_cast<float>(y[token * tensor.outputs + row]) *
                                         static_cast<float>(x[token * tensor.inputs + column]);
              }
              first[number] += sum_of_lanes(lane);
            }
          });
    });
  });
}

}  // namespace mist::cpu
