// Philox on SIMD lanes, one 64-bit lane a group: no header guard, since keep.cpp includes it once per instruction set,
// inside a namespace that defines
//   Lanes          a vector of kLanes 64-bit lanes
//   broadcast(u64), counters(first)    lane i of counters holds first + kOrder[i] in its low half
//   multiply(a, m) the 64-bit product of the low halves
//   high(a)        a >> 32, lane by lane
//   a ^ b          as xor_(a, b)
//   keep_bits(w0, w1, w2, w3, threshold, bytes)   compares the 16-bit draws and stores kLanes bytes
//
// Only the low half of a lane means anything: a product's low half is the low word, its shift the high word, so a
// round needs no shuffles.

inline void keep_bytes(const KeepRule& rule, uint32_t first, int64_t count, uint8_t* bytes) {
  const Lanes m0 = broadcast(philox::kMultiplier0);
  const Lanes m1 = broadcast(philox::kMultiplier1);
  Lanes key0[philox::kRounds];
  Lanes key1[philox::kRounds];
  uint32_t k0 = static_cast<uint32_t>(rule.seed);
  uint32_t k1 = static_cast<uint32_t>(rule.seed >> 32);
  for (int round = 0; round < philox::kRounds; ++round) {
    key0[round] = broadcast(k0);
    key1[round] = broadcast(k1);
    k0 += philox::kWeyl0;
    k1 += philox::kWeyl1;
  }
  int64_t done = 0;
  for (; done + kLanes <= count; done += kLanes) {
    Lanes c0 = counters(first + static_cast<uint32_t>(done));
    Lanes c1 = broadcast(rule.ordinal);
    Lanes c2 = broadcast(static_cast<uint32_t>(rule.step));
    Lanes c3 = broadcast(static_cast<uint32_t>(rule.step >> 32));
    for (int round = 0; round < philox::kRounds; ++round) {
      const Lanes p0 = multiply(c0, m0);
      const Lanes p1 = multiply(c2, m1);
      c0 = xor_(xor_(high(p1), c1), key0[round]);
      c1 = p1;
      c2 = xor_(xor_(high(p0), c3), key1[round]);
      c3 = p0;
    }
    keep_bits(c0, c1, c2, c3, rule.threshold, bytes + done);
  }
  for (; done < count; ++done) bytes[done] = keep_byte(rule, first + static_cast<uint32_t>(done));
}
