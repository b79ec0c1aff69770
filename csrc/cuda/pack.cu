// pack_: gathers the gradients that a step keeps into one vector.
#include <torch/csrc/stable/library.h>

#include "kept.cuh"
#include "multi_tensor.cuh"

namespace mist::cuda {
namespace {

template <class Real>
struct Pack {
  using Item = PackTensor;
  static constexpr int kThreads = kKeptThreads;
  static constexpr int kBlocks = 6;
  static constexpr int kChunk = static_cast<int>(kPlacePiece);

  Draw draw;
  const int64_t* step;
  PackedOutput packed;

  MIST_HOST_DEVICE static Range positions(const PackTensor& tensor) { return tensor.positions(); }

  __device__ void operator()(const PackTensor& tensor, int64_t begin, int64_t end) const {
    __shared__ uint8_t gathered[kKeptWarps][kWarpPositions];
    const KeepRule keep{draw.seed, static_cast<uint64_t>(*step), tensor.ordinal, draw.threshold};
    const Kept kept = gather_kept(keep, begin, end, gathered);
    const int64_t place = packed_place(packed, tensor.piece_of(begin), kept.count);
#pragma unroll 1  // where a tenth is kept, there is one round
    for (int k = lane(); k < kept.count; k += kWarp) {
      const uint32_t j = kept.position(k) - tensor.first;
      const uint32_t at = tensor.index ? static_cast<uint32_t>(tensor.index[j]) : j;
      const auto value = static_cast<float>(static_cast<const Real*>(tensor.grad)[at]);
      if (packed.dtype == Dtype::bfloat16) {
        static_cast<c10::BFloat16*>(packed.values)[place + k] = static_cast<c10::BFloat16>(value);
      } else {
        static_cast<float*>(packed.values)[place + k] = value;
      }
    }
  }
};

void pack_cuda(const Tensor& packed, const TensorList& grad, const OptionalTensorList& index, const Tensor& places,
               const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed,
               const Tensor& step) {
  Checker checker("pack_", grad.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, {}, std::nullopt, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_pack(checker, packed, grad, index, places, first, ordinal);
  for_each_chunk_by_dtype<Pack>(Device(packed), tensors, draw, scalars.step, packed_output(packed, places));
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) { m.impl("pack_", TORCH_BOX(&mist::cuda::pack_cuda)); }
