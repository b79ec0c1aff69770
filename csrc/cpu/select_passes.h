// The passes of select over many numbers, each for the instruction set in use.
#pragma once

#include <cstdint>

namespace mist::cpu {

struct Bounds {
  float lower;
  float upper;
};

struct Between {
  int64_t larger;  // how many numbers are above the upper bound
  int64_t count;   // how many are above the lower one alone
};

// Lists the scores above the bound, a NaN among them, and their positions; returns how many there are. Both lists have
// room for end - begin.
int64_t list_above(const float* score, int64_t begin, int64_t end, float bound, float* value, int32_t* position);

// Lists the values above the lower bound that are not above the upper one. The list may take the place of the values.
Between list_between(const float* value, int64_t size, const Bounds& bounds, float* to);

// Moves the positions of the values above the bound to the front; returns how many there are. None is a NaN.
int64_t keep_above(const float* value, int64_t size, float bound, int32_t* position);

}  // namespace mist::cpu
