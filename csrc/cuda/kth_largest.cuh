// The k-th largest of any number of scores, found by one block in three passes over them.
#pragma once

#include "radix.h"
#include "warp.cuh"

namespace mist::cuda {

constexpr int kSearchThreads = radix::kBins / 2;

// Its key, and how many of the scores equal to it belong to the `rank` largest. For a whole block of kSearchThreads;
// score_at(i) gives score i of `count`.
template <class ScoreAt>
__device__ radix::Search kth_largest(int64_t count, int32_t rank, const ScoreAt& score_at) {
  __shared__ int32_t histogram[radix::kBins];
  __shared__ radix::Search narrowed;
  radix::Search search{0, rank};
  for (int pass = 0; pass < radix::kPasses; ++pass) {
    for (int bin = static_cast<int>(threadIdx.x); bin < radix::kBins; bin += kSearchThreads) histogram[bin] = 0;
    __syncthreads();
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < count; i += kSearchThreads) {
      const uint32_t key = radix::key(score_at(i));
      if (search.shares(key, pass)) atomicAdd(&histogram[radix::Search::digit(key, pass)], 1);
    }
    __syncthreads();
    // Each thread stands for two digits, the first thread for the two largest; the rank falls into one thread's.
    const uint32_t digit = radix::kBins - 1 - 2 * threadIdx.x;
    const int32_t here = histogram[digit], below = histogram[digit - 1];
    int32_t total;
    const int32_t above = block_exclusive_sum<kSearchThreads>(here + below, total);
    search.narrow(pass, digit, above, here, below, narrowed);
    __syncthreads();
    search = narrowed;
  }
  return search;
}

}  // namespace mist::cuda
