// Which of a block's positions are kept, and where their gradients lie in a packed vector. A block has kPlacePiece
// positions of a selection list, each warp 256 of them.
#pragma once

#include "../philox.h"
#include "../tensors.h"
#include "warp.cuh"

namespace mist::cuda {

constexpr int kKeptThreads = static_cast<int>(kPlacePiece) / kGroup;  // one Philox call a thread
constexpr int kKeptWarps = kKeptThreads / kWarp;
constexpr int kWarpPositions = kWarp * kGroup;

// A warp's kept positions, counted from its first one, which lies on the grid.
struct Kept {
  uint32_t first;
  int count;
  const uint8_t* offset;

  __device__ uint32_t position(int k) const { return first + offset[k]; }
};

// Each warp on its own gathers what it keeps of [begin, end), so that all its lanes then wait for memory at the same
// time. `gathered` is the block's.
__device__ inline Kept gather_kept(const KeepRule& rule, int64_t begin, int64_t end,
                                   uint8_t (&gathered)[kKeptWarps][kWarpPositions]) {
  const auto corner = static_cast<uint32_t>(begin / kPlacePiece * kPlacePiece);
  const uint32_t first = corner + warp() * kWarpPositions;
  uint8_t* const offset = gathered[warp()];
  uint32_t bits =
      keep_byte_within(rule, first / kGroup + lane(), static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
  const int count = __popc(bits);
  const int inclusive = warp_inclusive_sum(count);
  for (int slot = inclusive - count; bits != 0; bits &= bits - 1)
    offset[slot++] = static_cast<uint8_t>(lane() * kGroup + __ffs(static_cast<int>(bits)) - 1);
  __syncwarp();
  return {first, __shfl_sync(kAllLanes, inclusive, kWarp - 1), offset};
}

// The place of a warp's first kept entry in the packed vector. The places come from the host, so they may be those of
// another draw; that ends the kernel before it reads or writes beyond the vector.
template <class Pointer>
__device__ int64_t packed_place(const PackedVector<Pointer>& packed, int64_t piece, int count) {
  int total = 0;
  const int before = sum_over_warps_before<kKeptWarps>(count, total);
  const int64_t place = packed.places[piece];
  const int64_t end = packed.places[piece + 1];
  if (place < 0 || end > packed.length || end - place != total) __trap();
  return place + before;
}

}  // namespace mist::cuda
