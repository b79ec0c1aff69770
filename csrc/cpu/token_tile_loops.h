// The loops of token_tile.cpp: no header guard, since it includes them once per instruction set, inside a namespace
// that defines
//   Lanes                             kTokenLanes floats
//   load(from)                        those at an aligned place
//   added_product(lanes, a, b)        lanes + a * b, each rounded
//   product(a, b)
//   sum(lanes)                        in the order of token_sums.h
//   transpose(from, stride, to)       to[i * kTokenTile + k] = from[k * stride + i] for i and k below kTokenLanes

template <class Real>
void fill(const TokenTile& tile, const int32_t* feature, int64_t count, float* panel) {
  const auto* const values = static_cast<const Real*>(tile.values);
  for (int first = 0; first < tile.tokens; first += kTokenLanes) {
    const Real* const from = values + first * tile.width;
    const int tokens = tile.tokens - first < kTokenLanes ? tile.tokens - first : kTokenLanes;
    for (int64_t at = 0; at < count; at += kPanelFeatures) {
      const int32_t* const block = feature + at;
      const int features = count - at < kPanelFeatures ? static_cast<int>(count - at) : kPanelFeatures;
      const bool neighbours = features == kPanelFeatures && block[kPanelFeatures - 1] - block[0] == kPanelFeatures - 1;
      float* const to = panel + at * kTokenTile + first;
      if (neighbours)  // a few blocks ahead: each token's features are a stream of their own, too many for the machine
        for (int k = 0; k < tokens; ++k) __builtin_prefetch(from + k * tile.width + block[0] + 2 * kPanelFeatures, 0);
      if constexpr (std::is_same_v<Real, float>) {
        if (neighbours && tokens == kTokenLanes) {
          transpose(from + block[0], tile.width, to);
          continue;
        }
      }
      alignas(64) float square[kTokenLanes][kPanelFeatures];
      if (tokens < kTokenLanes || features < kPanelFeatures) std::memset(square, 0, sizeof square);
      for (int k = 0; k < tokens; ++k) {
        const Real* const token = from + k * tile.width;
        if (neighbours) {
          for (int i = 0; i < kPanelFeatures; ++i) square[k][i] = static_cast<float>(token[block[0] + i]);
        } else {
          for (int i = 0; i < features; ++i) square[k][i] = static_cast<float>(token[block[i]]);
        }
      }
      transpose(square[0], kPanelFeatures, to);
    }
  }
}

inline void fill_any(const TokenTile& tile, const int32_t* feature, int64_t count, float* panel) {
  with_dtype(tile.dtype, [&](auto* type) { fill<std::remove_pointer_t<decltype(type)>>(tile, feature, count, panel); });
}

template <int kLanes>
void sums(const PanelEntry* entry, int64_t count, const float* rows, int32_t first_row, const float* columns,
          float* to) {
  for (int64_t k = 0; k < count; ++k) {
    const float* const row = rows + int64_t{entry[k].row - first_row} * kTokenTile;
    const float* const column = columns + int64_t{entry[k].column} * kTokenTile;
    Lanes lanes = product(load(row), load(column));
    for (int n = 1; n < kLanes; ++n)
      lanes = added_product(lanes, load(row + n * kTokenLanes), load(column + n * kTokenLanes));
    to[k] = 0.0f + sum(lanes);  // as if the lanes had begun at zero: never -0
  }
}

inline void sums_any(const PanelEntry* entry, int64_t count, const float* rows, int32_t first_row, const float* columns,
                     int lanes, float* to) {
  static_assert(kTokenTile == 4 * kTokenLanes);
  switch (lanes) {
    case 1: return sums<1>(entry, count, rows, first_row, columns, to);
    case 2: return sums<2>(entry, count, rows, first_row, columns, to);
    case 3: return sums<3>(entry, count, rows, first_row, columns, to);
    default: return sums<4>(entry, count, rows, first_row, columns, to);
  }
}
