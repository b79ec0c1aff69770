// mask_: everything but the kept entries of a gradient becomes zero; a kept one is multiplied by its factor.
#include <torch/csrc/stable/library.h>

#include "multi_tensor.cuh"
#include "warp.cuh"

namespace mist::cuda {
namespace {

// Where an ascending list reaches `bound`, for a whole warp: 32 probes at a time, so a list of a million takes four
// steps.
__device__ int64_t warp_lower_bound(const int32_t* values, int64_t count, int64_t bound) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t stride = (high - low + kWarp - 1) / kWarp;
    const int64_t probe = low + lane() * stride;
    const int passed = __popc(__ballot_sync(kAllLanes, probe < high && values[probe] < bound));
    high = min(high, low + passed * stride);
    if (passed > 0) low += (passed - 1) * stride + 1;
  }
  return low;
}

template <class Real>
struct Mask {
  using Item = MaskTensor;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 6;
  static constexpr int kChunk = 1 << 14;  // long enough to hide the search for the chunk's part of the index
  static constexpr int kVector = 16 / static_cast<int>(sizeof(Real));
  static constexpr int kWordBits = 32;

  Draw draw;
  const int64_t* step;
  const float* table;

  MIST_HOST_DEVICE static Range positions(const MaskTensor& tensor) { return {0, tensor.size}; }

  // First marks the chunk's kept entries in a bitmap, then clears the others without reading them.
  __device__ void operator()(const MaskTensor& tensor, int64_t begin, int64_t end) const {
    __shared__ uint32_t kept[kChunk / kWordBits];
    for (int w = static_cast<int>(threadIdx.x); w < kChunk / kWordBits; w += kThreads) kept[w] = 0;
    __shared__ int64_t range[2];  // of the selection, as far as it falls into this chunk
    if (warp() < 2) {
      const int64_t bound = warp() == 0 ? begin : end;
      // An empty index has no memory, just as none; it selects nothing.
      range[warp()] =
          tensor.index ? warp_lower_bound(tensor.index, tensor.selected, bound) : min(bound, tensor.selected);
    }
    __syncthreads();
    mark(tensor, begin, end, tensor.first + range[0], tensor.first + range[1], kept);
    __syncthreads();
    clear(static_cast<Real*>(tensor.grad) + begin, static_cast<int>(end - begin), kept);
  }

 private:
  // An index that does not ascend leads out of the chunk, which ends the kernel before it writes there.
  __device__ void mark(const MaskTensor& tensor, int64_t begin, int64_t end, int64_t first, int64_t last,
                       uint32_t* kept) const {
    const KeepRule rule{draw.seed, static_cast<uint64_t>(*step), tensor.ordinal, draw.threshold};
    auto* const grad = static_cast<Real*>(tensor.grad);
    for (int64_t group = first / kGroup + threadIdx.x; group * kGroup < last; group += kThreads) {
      uint32_t bits = keep_byte_within(rule, static_cast<uint32_t>(group), static_cast<uint32_t>(first),
                                       static_cast<uint32_t>(last));
      for (; bits != 0; bits &= bits - 1) {
        const int64_t j = group * kGroup + __ffs(static_cast<int>(bits)) - 1 - tensor.first;
        const int64_t place = tensor.index ? tensor.index[j] : j;
        if (place < begin || place >= end) __trap();
        const int offset = static_cast<int>(place - begin);
        atomicOr(&kept[offset / kWordBits], 1u << offset % kWordBits);
        if (tensor.code) grad[place] = static_cast<Real>(static_cast<float>(grad[place]) * table[tensor.code[j]]);
      }
    }
  }

  __device__ void clear(Real* grad, int count, const uint32_t* kept) const {
    const bool aligned = reinterpret_cast<uintptr_t>(grad) % sizeof(uint4) == 0;
    for (int k = static_cast<int>(threadIdx.x) * kVector; k < count; k += kThreads * kVector) {
      const uint32_t bits = kept[k / kWordBits] >> k % kWordBits & ((1u << kVector) - 1);
      if (bits == 0 && aligned && k + kVector <= count) {
        *reinterpret_cast<uint4*>(grad + k) = uint4{0, 0, 0, 0};
      } else {
        for (int i = 0; i < kVector && k + i < count; ++i)
          if (!(bits >> i & 1)) grad[k + i] = static_cast<Real>(0.0f);
      }
    }
  }
};

void mask_cuda(const TensorList& grad, const OptionalTensorList& index, const OptionalTensorList& scale_code,
               const std::optional<Tensor>& table, const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed,
               const Tensor& step, const std::vector<int64_t>& first) {
  Checker checker("mask_", grad.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, scale_code, table, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_mask(checker, grad, index, scale_code, ordinal, first);
  const Device device(grad[0]);
  for_each_chunk_by_dtype<Mask>(device, tensors, draw, scalars.step, scalars.table);
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) { m.impl("mask_", TORCH_BOX(&mist::cuda::mask_cuda)); }
