// How sampled_weight_grad_ is cut into blocks and launches on a GPU. Host and device, no torch.
//
// A block adds up one tile of tokens for a group of kept entries. A launch has some tiles of all entries, as many as
// there is room for their sums; they are then added to the packed vector in the order of the tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../tensors.h"
#include "../token_sums.h"

namespace mist::cuda {

constexpr int kSampledThreads = 512;
constexpr int kSampledEach = 2;                                  // entries of a thread
constexpr int kSampledEntries = kSampledThreads * kSampledEach;  // of a block at a time
constexpr size_t kStagedBytes = 48 * 1024;                       // of inputs in shared memory
constexpr int64_t kSampledSums = int64_t{1} << 23;               // floats that tiles leave at a time: 32 MB

// A linear layer and the tiles of it that a launch has.
struct TiledLinear {
  const void* grad_output;
  const void* input;
  int64_t tokens;
  int64_t outputs;
  int64_t inputs;
  uint32_t piece;   // the number of its first piece
  uint32_t pieces;  // how many it has
  uint32_t groups;  // of pieces
  uint32_t first_tile;
  uint32_t tiles;
  Dtype dtype;

  MIST_HOST_DEVICE int64_t blocks() const { return int64_t{groups} * tiles; }
  // Neighbouring blocks have the same tile, whose inputs they then find in the cache.
  MIST_HOST_DEVICE uint32_t group_of(int64_t block) const { return static_cast<uint32_t>(block % groups); }
  MIST_HOST_DEVICE uint32_t tile_of(int64_t block) const { return static_cast<uint32_t>(block / groups); }
};

// Pieces whose kept entries a block goes through at once, with room for one in six more than there are on average.
inline uint32_t pieces_of_group(uint32_t threshold) {
  const int64_t kept = std::max<int64_t>(kPlacePiece * threshold / 65536, 1);
  return static_cast<uint32_t>(std::clamp<int64_t>(kSampledEntries * 6 / 7 / kept, 1, 64));
}

// Tokens whose inputs fit in shared memory together: a power of two up to all lanes, 0 where not even one does.
MIST_HOST_DEVICE inline int staged_tokens(int64_t inputs, size_t itemsize) {
  int tokens = kTokenLanes;
  while (tokens > 0 && static_cast<size_t>(tokens * inputs) * itemsize > kStagedBytes) tokens /= 2;
  return tokens;
}

// Tiles of a packed vector of that length whose sums there is room for at once.
inline int64_t tiles_at_a_time(int64_t length) {
  return std::max<int64_t>(kSampledSums / std::max<int64_t>(length, 1), 1);
}

// The tiles [first, first + count) of a layer, as far as it has them.
inline TiledLinear tiled(const LinearTensor& tensor, uint32_t group, int64_t first, int64_t count) {
  const auto pieces = static_cast<uint32_t>(cells(tensor.positions(), kPlacePiece));
  const int64_t tiles = std::clamp<int64_t>(token_tiles(tensor.tokens) - first, 0, count);
  return {tensor.grad_output,
          tensor.input,
          tensor.tokens,
          tensor.outputs,
          tensor.inputs,
          tensor.piece,
          pieces,
          (pieces + group - 1) / group,
          static_cast<uint32_t>(first),
          static_cast<uint32_t>(tiles),
          tensor.dtype};
}

}  // namespace mist::cuda
