// The passes of select: no header guard, since select_passes.cpp includes them once per instruction set, inside a
// namespace that defines
//   kLanes                        how many numbers are compared at once
//   above(from, bound)            bit i set unless from[i] <= bound: a NaN is above every bound
//   put(lanes, from, to)          writes from[i] of every lane i that is set, one behind the other, and then anything:
//                                 kLanes in all
//   put_places(lanes, first, to)  the same with first + i

inline int64_t list_above(const float* score, int64_t begin, int64_t end, float bound, float* value,
                          int32_t* position) {
  int64_t count = 0;
  int64_t at = begin;
  for (; at + kLanes <= end; at += kLanes) {
    const unsigned lanes = above(score + at, bound);
    put(lanes, score + at, value + count);
    put_places(lanes, static_cast<int32_t>(at), position + count);
    count += std::popcount(lanes);
  }
  for (; at < end; ++at) {
    value[count] = score[at];
    position[count] = static_cast<int32_t>(at);
    count += !(score[at] <= bound);
  }
  return count;
}

inline Between list_between(const float* value, int64_t size, const Bounds& bounds, float* to) {
  Between found{0, 0};
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) {
    const unsigned larger = above(value + at, bounds.upper);
    const unsigned lanes = above(value + at, bounds.lower) & ~larger;
    put(lanes, value + at, to + found.count);
    found.larger += std::popcount(larger);
    found.count += std::popcount(lanes);
  }
  for (; at < size; ++at) {
    const float one = value[at];
    to[found.count] = one;
    found.larger += one > bounds.upper;
    found.count += one > bounds.lower && one <= bounds.upper;
  }
  return found;
}

inline int64_t keep_above(const float* value, int64_t size, float bound, int32_t* position) {
  int64_t count = 0;
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) {
    const unsigned lanes = above(value + at, bound);
    put(lanes, position + at, position + count);
    count += std::popcount(lanes);
  }
  for (; at < size; ++at) {
    position[count] = position[at];
    count += value[at] > bound;
  }
  return count;
}
