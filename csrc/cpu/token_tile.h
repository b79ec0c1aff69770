// What sampled_weight_grad_ does with a tile of tokens, for the instruction set in use: a panel of features, each with
// its tokens side by side, and the sums over the tokens for pairs of them.
#pragma once

#include <cstdint>

#include "../tensors.h"
#include "../token_sums.h"

namespace mist::cpu {

constexpr int kPanelFeatures = kTokenLanes;  // a panel's features come in whole blocks

// The tokens of a tile: those of a row-major matrix [tokens, width], from its first one on.
struct TokenTile {
  const void* values;
  int64_t width;
  int tokens;  // 1 to kTokenTile
  Dtype dtype;

  int lanes_of_tokens() const { return (tokens + kTokenLanes - 1) / kTokenLanes; }
};

// Writes panel[slot][token] = tile[token][feature[slot]] as floats, for `count` slots. The panel has room for whole
// blocks of features and kTokenTile tokens each; tokens that are missing in the last lanes are zero, and what lies
// beyond those lanes is left alone.
void fill_panel(const TokenTile& tile, const int32_t* feature, int64_t count, float* panel);

// An entry of a weight's gradient, by its places in two panels.
struct PanelEntry {
  int32_t row;
  int32_t column;
};

// Writes the sum over the tile's products for each entry, in the order of token_sums.h. `lanes` is lanes_of_tokens() of
// the tile; the first row of `rows` is `first_row`.
void sum_products(const PanelEntry* entry, int64_t count, const float* rows, int32_t first_row, const float* columns,
                  int lanes, float* sum);

}  // namespace mist::cpu
