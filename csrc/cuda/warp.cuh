// Sums over the threads of a warp and of a block.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace mist::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

// How many of the lanes in `ballot` lie below this one.
__device__ inline int below(uint32_t ballot) { return __popc(ballot & ((1u << lane()) - 1)); }

// Sum over this lane and those below it.
__device__ inline int warp_inclusive_sum(int value) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane() >= distance) value += other;
  }
  return value;
}

// Sum over the threads before this one; `total` becomes the sum over the whole block.
template <int kThreads>
__device__ int block_exclusive_sum(int value, int& total) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ int warp_total[kWarps];
  const int inclusive = warp_inclusive_sum(value);
  if (lane() == kWarp - 1) warp_total[warp()] = inclusive;
  __syncthreads();
  const int own = lane() < kWarps ? warp_total[lane()] : 0;
  const int totals = warp_inclusive_sum(own);
  total = __shfl_sync(kAllLanes, totals, kWarp - 1);
  const int warps_before = __shfl_sync(kAllLanes, totals - own, warp());
  __syncthreads();  // warp_total may be needed again
  return warps_before + inclusive - value;
}

// Sum over the warps before this one of a value that each has; `total` becomes the sum over all.
template <int kWarps>
__device__ int sum_over_warps_before(int value, int& total) {
  __shared__ int of_warp[kWarps];
  if (lane() == 0) of_warp[warp()] = value;
  __syncthreads();
  int before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp()) before += of_warp[w];
    total += of_warp[w];
  }
  return before;
}

}  // namespace mist::cuda
