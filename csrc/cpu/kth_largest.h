// The k-th largest of many numbers, as good as a sample of them tells, and exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "select_passes.h"

namespace mist::cpu {

// Some of the numbers, to guess at the k-th largest of all. A NaN among them is left out, and of few numbers there is
// no sample: then the bounds are infinite.
class Sample {
 public:
  Sample(const float* value, int64_t size, int64_t k);

  // The number `width` standard deviations below where the k-th is expected.
  float below_kth(double width);

  // The numbers as far below and above.
  Bounds about_kth(double width);

 private:
  double expected() const;
  double margin(double width) const;
  float at_rank(double rank, float otherwise);

  std::vector<float> some_;
  double rate_;
};

// None of the values is a NaN, and k is at least 1.
float kth_largest(const float* value, int64_t size, int64_t k);

}  // namespace mist::cpu
