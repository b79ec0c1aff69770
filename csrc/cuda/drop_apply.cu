// drop_apply_*_: draws which selected entries keep their gradient, and updates those. The others are neither read nor
// written, so the work is the draws plus one sector of parameter and of gradient for each kept entry.
#include <torch/csrc/stable/library.h>

#include <type_traits>

#include "../rules.h"
#include "kept.cuh"
#include "multi_tensor.cuh"

namespace mist::cuda {
namespace {

template <class Rule, class Real, bool kPacked>
struct DropApply {
  using Item = typename Rule::Tensor;
  static constexpr int kThreads = kKeptThreads;
  static constexpr int kBlocks = std::is_same_v<Rule, Sgd> ? 6 : 4;  // AdamW needs more registers
  static constexpr int kChunk = static_cast<int>(kPlacePiece);

  Draw draw;
  DeviceScalars scalars;
  typename Rule::Options options;
  Packed packed;

  MIST_HOST_DEVICE static Range positions(const Item& tensor) { return tensor.positions(); }

  __device__ void operator()(const Item& tensor, int64_t begin, int64_t end) const {
    __shared__ uint8_t gathered[kKeptWarps][kWarpPositions];
    if (scalars.found_inf && *scalars.found_inf != 0) return;
    const Rule rule{options, *scalars.lr};
    const float divisor = scalars.grad_scale ? *scalars.grad_scale : 1.0f;
    const KeepRule keep{draw.seed, static_cast<uint64_t>(*scalars.step), tensor.ordinal, draw.threshold};
    const Kept kept = gather_kept(keep, begin, end, gathered);
    int64_t place = 0;
    if constexpr (kPacked) place = packed_place(packed, tensor.piece_of(begin), kept.count);
#pragma unroll 1  // where a tenth is kept, there is one round
    for (int k = lane(); k < kept.count; k += kWarp)
      update(tensor, rule, divisor, kept.position(k) - tensor.first, place + k);
  }

 private:
  // Nothing is written before all is read, so that an entry waits twice: for its index, then for the rest.
  __device__ void update(const Item& tensor, const Rule& rule, float divisor, uint32_t j, int64_t place) const {
    auto* const param = static_cast<Real*>(tensor.param);
    const uint32_t at = tensor.index ? static_cast<uint32_t>(tensor.index[j]) : j;
    const uint8_t code = tensor.code ? tensor.code[j] : 0;
    float value = tensor.master ? tensor.master[j] : static_cast<float>(param[at]);
    const float scaled = gradient(tensor, at, place);
    const float factor = tensor.code ? scalars.table[code] : 1.0f;
    rule(tensor, j, scaled / divisor * factor, value);
    if (tensor.master) tensor.master[j] = value;
    param[at] = static_cast<Real>(value);
  }

  __device__ float gradient(const Item& tensor, uint32_t at, int64_t place) const {
    if constexpr (!kPacked) {
      return static_cast<float>(static_cast<const Real*>(tensor.grad)[at]);
    } else {
      return packed.dtype == Dtype::bfloat16
                 ? static_cast<float>(static_cast<const c10::BFloat16*>(packed.values)[place])
                 : static_cast<const float*>(packed.values)[place];
    }
  }
};

template <class Rule, bool kPacked>
struct Bodies {
  template <class Real>
  using Body = DropApply<Rule, Real, kPacked>;
};

template <class Rule>
void drop_apply(const Device& device, const std::vector<typename Rule::Tensor>& tensors, const Draw& draw,
                const DeviceScalars& scalars, const typename Rule::Options& options, const Packed& packed) {
  if (packed.places) {
    for_each_chunk_by_dtype<Bodies<Rule, true>::template Body>(device, tensors, draw, scalars, options, packed);
  } else {
    for_each_chunk_by_dtype<Bodies<Rule, false>::template Body>(device, tensors, draw, scalars, options, packed);
  }
}

void drop_apply_sgd_cuda(const TensorList& param, const TensorList& grad, const OptionalTensorList& index,
                         const TensorList& momentum_buffer, const TensorList& master,
                         const OptionalTensorList& scale_code, const std::optional<Tensor>& table,
                         const std::vector<int64_t>& ordinal, const Tensor& lr, double momentum, double weight_decay,
                         int64_t threshold, int64_t seed, const Tensor& step, const std::optional<Tensor>& found_inf,
                         const std::optional<Tensor>& grad_scale, const std::vector<int64_t>& first,
                         const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  Checker checker("drop_apply_sgd_", param.at(0));
  const DeviceScalars scalars = check_scalars(checker, scale_code, table, step, lr, found_inf, grad_scale);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors =
      check_drop_apply_sgd(checker, {param, grad, index, master, scale_code, ordinal, first, packed, places},
                           momentum_buffer, momentum != 0);
  drop_apply<Sgd>(Device(param[0]), tensors, draw, scalars, sgd_options(momentum, weight_decay),
                  packed_gradients(packed, places));
}

void drop_apply_adamw_cuda(const TensorList& param, const TensorList& grad, const OptionalTensorList& index,
                           const TensorList& exp_avg, const TensorList& exp_avg_sq, const TensorList& updates,
                           const TensorList& master, const OptionalTensorList& scale_code,
                           const std::optional<Tensor>& table, const std::vector<int64_t>& ordinal, const Tensor& lr,
                           double beta1, double beta2, double eps, double weight_decay, const Tensor& correction,
                           int64_t threshold, int64_t seed, const Tensor& step, const std::optional<Tensor>& found_inf,
                           const std::optional<Tensor>& grad_scale, const std::vector<int64_t>& first,
                           const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  Checker checker("drop_apply_adamw_", param.at(0));
  const DeviceScalars scalars = check_scalars(checker, scale_code, table, step, lr, found_inf, grad_scale);
  const AdamW::Options options = check_adamw(checker, beta1, beta2, eps, weight_decay, correction);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_drop_apply_adamw(
      checker, {param, grad, index, master, scale_code, ordinal, first, packed, places}, exp_avg, exp_avg_sq, updates);
  drop_apply<AdamW>(Device(param[0]), tensors, draw, scalars, options, packed_gradients(packed, places));
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) {
  m.impl("drop_apply_sgd_", TORCH_BOX(&mist::cuda::drop_apply_sgd_cuda));
  m.impl("drop_apply_adamw_", TORCH_BOX(&mist::cuda::drop_apply_adamw_cuda));
}
