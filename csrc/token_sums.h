// The order in which an entry's products are added up over the tokens, for sampled_weight_grad_. One copy for host and
// device, no torch.
//
// Tokens are cut into tiles of 64. Within a tile, lane l of 16 begins at zero and adds the products of its tokens l,
// l + 16, l + 32 and l + 48 one after the other. The lanes are added 8 + 8, 4 + 4, 2 + 2 and 1 + 1. Tiles are added to
// the entry one after the other, from the first to the last. A sum that begins at zero is never -0, so zero products
// may stand in for tokens that are missing.
//
// Sixteen lanes are a register of the widest instruction set and whole registers of the others. A tile that all entries
// need fits a cache, and several threads or blocks can work on tiles of their own.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace mist {

constexpr int kTokenTile = 64;
constexpr int kTokenLanes = 16;

MIST_HOST_DEVICE inline int64_t token_tiles(int64_t tokens) { return (tokens + kTokenTile - 1) / kTokenTile; }

// What becomes of the lanes of a tile. They are overwritten.
MIST_HOST_DEVICE inline float sum_of_lanes(float (&lane)[kTokenLanes]) {
  for (int half = kTokenLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] = lane[l] + lane[l + half];
  return lane[0];
}

}  // namespace mist
