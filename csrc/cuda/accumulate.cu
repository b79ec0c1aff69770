// accumulate_: score += scale * grad^2, frozen entries left alone. Reads and writes each score once, reads each
// gradient once.
#include <torch/csrc/stable/library.h>

#include "../rules.h"
#include "multi_tensor.cuh"

namespace mist::cuda {
namespace {

constexpr int kVector = 4;  // 16 bytes of scores

template <class T>
struct alignas(kVector * sizeof(T)) Vector {
  T at[kVector];
};

template <class T>
__device__ bool aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % sizeof(Vector<T>) == 0;
}

template <class Grad>
struct Accumulate {
  using Item = AccumulateTensor;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 4;
  static constexpr int kUnroll = 4;  // vectors that a thread has in flight
  static constexpr int kChunk = kThreads * kVector * kUnroll;

  float scale;

  MIST_HOST_DEVICE static Range positions(const AccumulateTensor& tensor) { return {0, tensor.size}; }

  __device__ void operator()(const AccumulateTensor& tensor, int64_t begin, int64_t end) const {
    float* const score = tensor.score + begin;
    const Grad* const grad = static_cast<const Grad*>(tensor.grad) + begin;
    const uint8_t* const frozen = tensor.frozen ? tensor.frozen + begin / 8 : nullptr;
    const int count = static_cast<int>(end - begin);
    // Views of other tensors can begin at an odd place; those go entry by entry.
    const int whole = aligned(score) && aligned(grad) ? count / kVector * kVector : 0;
    vectors(score, grad, frozen, whole);
    singles(score, grad, frozen, whole, count);
  }

 private:
  __device__ void vectors(float* score, const Grad* grad, const uint8_t* frozen, int count) const {
    Vector<float> scores[kUnroll];
    Vector<Grad> grads[kUnroll];
    uint32_t bits[kUnroll];
    const auto place = [](int u) { return kVector * (u * kThreads + static_cast<int>(threadIdx.x)); };
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (place(u) >= count) continue;
      scores[u] = *reinterpret_cast<const Vector<float>*>(score + place(u));
      grads[u] = *reinterpret_cast<const Vector<Grad>*>(grad + place(u));
      bits[u] = frozen ? frozen[place(u) / 8] : 0;
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (place(u) >= count) continue;
#pragma unroll
      for (int i = 0; i < kVector; ++i)
        if (!(bits[u] >> (place(u) % 8 + i) & 1))
          scores[u].at[i] = accumulated(scores[u].at[i], static_cast<float>(grads[u].at[i]), scale);
      *reinterpret_cast<Vector<float>*>(score + place(u)) = scores[u];
    }
  }

  __device__ void singles(float* score, const Grad* grad, const uint8_t* frozen, int begin, int end) const {
    for (int k = begin + static_cast<int>(threadIdx.x); k < end; k += kThreads)
      if (!frozen || !(frozen[k / 8] >> k % 8 & 1))
        score[k] = accumulated(score[k], static_cast<float>(grad[k]), scale);
  }
};

void accumulate_cuda(const TensorList& score, const TensorList& grad, const OptionalTensorList& frozen, double scale) {
  const auto tensors = check_accumulate(score, grad, frozen);
  const Device device(score[0]);
  for_each_chunk_by_dtype<Accumulate>(device, tensors, static_cast<float>(scale));
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) { m.impl("accumulate_", TORCH_BOX(&mist::cuda::accumulate_cuda)); }
