// drop_apply_sgd_: draws which selected entries keep their gradient, and updates those. The others are neither read nor
// written, so the work is the draws plus one cache line of parameter and of gradient for each kept entry.
#include <torch/csrc/stable/library.h>

#include "../rules.h"
#include "keep.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 2048;  // entries; the cache lines of the kept tenth fit in the first-level cache

template <class Real>
void drop_apply(const SgdTensor& tensor, const KeepRule& rule, const Sgd& sgd, const float* table, float grad_scale,
                int64_t begin, int64_t end) {
  int32_t kept[kPiece];
  const int count = kept_positions(rule, begin, end, kept);
  auto* const param = static_cast<Real*>(tensor.param);
  const auto* const grad = static_cast<const Real*>(tensor.grad);
  const auto place = [&](int k) { return tensor.index ? tensor.index[kept[k]] : kept[k]; };
  if (tensor.index) {  // all cache misses of the piece at once, instead of one after another
    for (int k = 0; k < count; ++k) {
      __builtin_prefetch(grad + place(k), 0);
      __builtin_prefetch(param + place(k), 1);
    }
  }
  for (int k = 0; k < count; ++k) {
    const int32_t j = kept[k];
    const int32_t at = place(k);
    float gradient = static_cast<float>(grad[at]) / grad_scale;
    if (tensor.code) gradient *= table[tensor.code[j]];
    float value = tensor.master ? tensor.master[j] : static_cast<float>(param[at]);
    float momentum = tensor.momentum ? tensor.momentum[j] : 0.0f;
    apply_sgd(sgd, gradient, value, momentum);
    if (tensor.momentum) tensor.momentum[j] = momentum;
    if (tensor.master) tensor.master[j] = value;
    param[at] = static_cast<Real>(value);
  }
}

void drop_apply_sgd_cpu(TensorList param, TensorList grad, OptionalTensorList index, TensorList momentum_buffer,
                        TensorList master, OptionalTensorList scale_code, std::optional<Tensor> table,
                        std::vector<int64_t> ordinal, Tensor lr, double momentum, double weight_decay,
                        int64_t threshold, int64_t seed, Tensor step, std::optional<Tensor> found_inf,
                        std::optional<Tensor> grad_scale) {
  const auto tensors =
      check_drop_apply_sgd(param, grad, index, momentum_buffer, master, scale_code, ordinal, momentum != 0);
  const DeviceScalars scalars =
      check_scalars("drop_apply_sgd_", param[0], scale_code, table, step, lr, found_inf, grad_scale);
  const uint32_t bound = check_threshold("drop_apply_sgd_", threshold);
  if (scalars.found_inf && *scalars.found_inf != 0) return;
  const Sgd sgd{*scalars.lr, static_cast<float>(momentum), static_cast<float>(weight_decay)};
  const float divisor = scalars.grad_scale ? *scalars.grad_scale : 1.0f;
  for_each_piece(
      tensors, kPiece, [](const SgdTensor& tensor) { return tensor.selected; },
      [&](size_t t, int64_t begin, int64_t end) {
        const KeepRule rule{static_cast<uint64_t>(seed), static_cast<uint64_t>(*scalars.step), tensors[t].ordinal,
                            bound};
        with_dtype(tensors[t].dtype, [&](auto* type) {
          drop_apply<std::remove_pointer_t<decltype(type)>>(tensors[t], rule, sgd, scalars.table, divisor, begin, end);
        });
      });
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) { m.impl("drop_apply_sgd_", TORCH_BOX(&mist::cpu::drop_apply_sgd_cpu)); }
