// Philox on SIMD lanes, one 64-bit lane a group of eight entries: no header guard, since keep.cpp includes it once per
// instruction set, inside a namespace that defines
//   Lanes                         a vector of kLanes 64-bit lanes
//   broadcast(u64), counters(first)
//   multiply(a, m)                the 64-bit product of the low halves
//   high(a)                       a >> 32, lane by lane
//   xor3(a, b, c)
//   compare(w0, w1, w2, w3, threshold)   the 16-bit draws below the threshold as 8 * kLanes bits, lowest entry first
//
// Only the low half of a lane means anything: a product's low half is the low word, its shift the high word, so a
// round needs no shuffles.

inline uint64_t draw(const Keeper& keeper, uint32_t group) {
  constexpr int kVectors = kWord / kGroup / kLanes;
  const Lanes m0 = broadcast(philox::kMultiplier0);
  const Lanes m1 = broadcast(philox::kMultiplier1);
  Lanes c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    c0[v] = counters(group + static_cast<uint32_t>(v * kLanes));
    c1[v] = broadcast(keeper.rule.ordinal);
    c2[v] = broadcast(static_cast<uint32_t>(keeper.rule.step));
    c3[v] = broadcast(static_cast<uint32_t>(keeper.rule.step >> 32));
  }
  for (int round = 0; round < philox::kRounds; ++round) {
    for (int v = 0; v < kVectors; ++v) {
      const Lanes p0 = multiply(c0[v], m0);
      const Lanes p1 = multiply(c2[v], m1);
      c0[v] = xor3(high(p1), c1[v], broadcast(keeper.key0[round]));
      c1[v] = p1;
      c2[v] = xor3(high(p0), c3[v], broadcast(keeper.key1[round]));
      c3[v] = p0;
    }
  }
  uint64_t bits = 0;
  for (int v = 0; v < kVectors; ++v)
    bits |= compare(c0[v], c1[v], c2[v], c3[v], keeper.rule.threshold) << (v * kLanes * kGroup);
  return bits;
}
