// The passes of select over a piece of the scores: no header guard, since select.cpp includes them once per instruction
// set, inside a namespace that defines
//   reach(score, bound)    64 bits, bit i set unless score[i] < bound: a NaN reaches every bound
//   exceed(score, bound)   64 bits, bit i set unless score[i] <= bound

// Writes the scores above `lower` and below `upper` to `band`, which has room for all, and counts those that reach
// `upper`.
inline BandCount write_band(const float* score, int64_t begin, int64_t end, const Bounds& bounds, float* band) {
  BandCount count{0, 0};
  int64_t at = begin;
  for (; at + 64 <= end; at += 64) {
    const uint64_t upper = reach(score + at, bounds.upper);
    count.upper += std::popcount(upper);
    for (uint64_t bits = exceed(score + at, bounds.lower) & ~upper; bits != 0; bits &= bits - 1)
      band[count.band++] = score[at + std::countr_zero(bits)];
  }
  for (; at < end; ++at) {
    if (!(score[at] < bounds.upper)) {
      ++count.upper;
    } else if (score[at] > bounds.lower) {
      band[count.band++] = score[at];
    }
  }
  return count;
}

// Writes the positions of the scores above `kth` and of the first `ties` that equal it; returns how many there are.
inline int64_t write_positions(const float* score, int64_t begin, int64_t end, float kth, int64_t ties,
                               int32_t* position, bool& has_nan) {
  int64_t count = 0;
  const auto add = [&](int64_t at) {
    if (score[at] > kth || ties-- > 0) position[count++] = static_cast<int32_t>(at);
    has_nan |= std::isnan(score[at]);
  };
  int64_t at = begin;
  for (; at + 64 <= end; at += 64)
    for (uint64_t bits = reach(score + at, kth); bits != 0; bits &= bits - 1) add(at + std::countr_zero(bits));
  for (; at < end; ++at)
    if (!(score[at] < kth)) add(at);
  return count;
}
