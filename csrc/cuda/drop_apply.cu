// drop_apply_*_: draws which selected entries keep their gradient, and updates those. The others are neither read nor
// written, so the work is the draws plus one sector of parameter and of gradient for each kept entry.
#include <torch/csrc/stable/library.h>

#include <type_traits>

#include "../rules.h"
#include "multi_tensor.cuh"
#include "warp.cuh"

namespace mist::cuda {
namespace {

template <class Rule, class Real>
struct DropApply {
  using Item = typename Rule::Tensor;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = std::is_same_v<Rule, Sgd> ? 6 : 4;  // AdamW needs more registers
  static constexpr int kWarpEntries = kWarp * kGroup;                // one Philox call a thread
  static constexpr int kChunk = kThreads * kGroup;

  Draw draw;
  DeviceScalars scalars;
  typename Rule::Options options;

  MIST_HOST_DEVICE static int64_t entries(const Item& tensor) { return tensor.selected; }

  // Each warp on its own gathers what its entries keep, so that all its lanes then wait for memory at the same time.
  __device__ void operator()(const Item& tensor, int64_t begin, int64_t end) const {
    __shared__ uint8_t gathered[kThreads / kWarp][kWarpEntries];
    if (scalars.found_inf && *scalars.found_inf != 0) return;
    const Rule rule{options, *scalars.lr};
    const float divisor = scalars.grad_scale ? *scalars.grad_scale : 1.0f;
    const uint32_t first = static_cast<uint32_t>(begin) + warp() * kWarpEntries;
    const int count = gather(tensor, first, static_cast<uint32_t>(end), gathered[warp()]);
#pragma unroll 1  // where a tenth is kept, there is one round
    for (int k = lane(); k < count; k += kWarp) update(tensor, rule, divisor, first + gathered[warp()][k]);
  }

 private:
  // Writes which of the warp's entries are kept, counted from `first`; returns how many there are.
  __device__ int gather(const Item& tensor, uint32_t first, uint32_t end, uint8_t* kept) const {
    const KeepRule rule{draw.seed, static_cast<uint64_t>(*scalars.step), tensor.ordinal, draw.threshold};
    const uint32_t mine = first + lane() * kGroup;
    uint32_t bits = mine < end ? keep_byte(rule, mine / kGroup) : 0;
    if (mine < end && end - mine < kGroup) bits &= (1u << (end - mine)) - 1;
    const int count = __popc(bits);
    const int inclusive = warp_inclusive_sum(count);
    for (int slot = inclusive - count; bits != 0; bits &= bits - 1)
      kept[slot++] = static_cast<uint8_t>(lane() * kGroup + __ffs(static_cast<int>(bits)) - 1);
    __syncwarp();
    return __shfl_sync(kAllLanes, inclusive, kWarp - 1);
  }

  // Nothing is written before all is read, so that an entry waits twice: for its index, then for the rest.
  __device__ void update(const Item& tensor, const Rule& rule, float divisor, uint32_t j) const {
    auto* const param = static_cast<Real*>(tensor.param);
    const auto* const grad = static_cast<const Real*>(tensor.grad);
    const uint32_t at = tensor.index ? static_cast<uint32_t>(tensor.index[j]) : j;
    const uint8_t code = tensor.code ? tensor.code[j] : 0;
    float value = tensor.master ? tensor.master[j] : static_cast<float>(param[at]);
    const auto scaled = static_cast<float>(grad[at]);
    const float factor = tensor.code ? scalars.table[code] : 1.0f;
    rule(tensor, j, scaled / divisor * factor, value);
    if (tensor.master) tensor.master[j] = value;
    param[at] = static_cast<Real>(value);
  }
};

template <class Real>
using DropApplySgd = DropApply<Sgd, Real>;
template <class Real>
using DropApplyAdamW = DropApply<AdamW, Real>;

void drop_apply_sgd_cuda(TensorList param, TensorList grad, OptionalTensorList index, TensorList momentum_buffer,
                         TensorList master, OptionalTensorList scale_code, std::optional<Tensor> table,
                         std::vector<int64_t> ordinal, Tensor lr, double momentum, double weight_decay,
                         int64_t threshold, int64_t seed, Tensor step, std::optional<Tensor> found_inf,
                         std::optional<Tensor> grad_scale) {
  const auto tensors =
      check_drop_apply_sgd({param, grad, index, master, scale_code, ordinal}, momentum_buffer, momentum != 0);
  const DeviceScalars scalars =
      check_scalars("drop_apply_sgd_", param[0], scale_code, table, step, lr, found_inf, grad_scale);
  const Draw draw = check_draw("drop_apply_sgd_", threshold, seed);
  for_each_chunk_by_dtype<DropApplySgd>(Device(param[0]), tensors, draw, scalars, sgd_options(momentum, weight_decay));
}

void drop_apply_adamw_cuda(TensorList param, TensorList grad, OptionalTensorList index, TensorList exp_avg,
                           TensorList exp_avg_sq, TensorList updates, TensorList master, OptionalTensorList scale_code,
                           std::optional<Tensor> table, std::vector<int64_t> ordinal, Tensor lr, double beta1,
                           double beta2, double eps, double weight_decay, Tensor correction, int64_t threshold,
                           int64_t seed, Tensor step, std::optional<Tensor> found_inf,
                           std::optional<Tensor> grad_scale) {
  const auto tensors =
      check_drop_apply_adamw({param, grad, index, master, scale_code, ordinal}, exp_avg, exp_avg_sq, updates);
  const DeviceScalars scalars =
      check_scalars("drop_apply_adamw_", param[0], scale_code, table, step, lr, found_inf, grad_scale);
  const Draw draw = check_draw("drop_apply_adamw_", threshold, seed);
  const AdamW::Options options = check_adamw(param[0], beta1, beta2, eps, weight_decay, correction);
  for_each_chunk_by_dtype<DropApplyAdamW>(Device(param[0]), tensors, draw, scalars, options);
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) {
  m.impl("drop_apply_sgd_", TORCH_BOX(&mist::cuda::drop_apply_sgd_cuda));
  m.impl("drop_apply_adamw_", TORCH_BOX(&mist::cuda::drop_apply_adamw_cuda));
}
