#include "kth_largest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace mist::cpu {
namespace {

constexpr int64_t kFew = 1024;
constexpr int64_t kRun = 4;      // numbers of a sample that lie side by side: one cache line is read for all of them
constexpr double kWidest = 1e3;  // standard deviations, that no sample is as wide as
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 0 to below - 1, spread by the golden ratio: a fixed stride that divides a matrix's width would sample few columns.
int64_t spread(int64_t run, int64_t below) {
  return static_cast<int64_t>((uint64_t{static_cast<uint32_t>(run) * 0x9E3779B9u} * static_cast<uint64_t>(below)) >>
                              32);
}

// Quickselect among numbers that it reorders, without a branch on a comparison of two.
float kth_largest_of_few(float* value, int64_t size, int64_t k) {
  const auto to_front = [&](const auto& chosen) {
    int64_t count = 0;
    for (int64_t i = 0; i < size; ++i) {
      const float one = value[i];
      value[i] = value[count];
      value[count] = one;
      count += chosen(one);
    }
    return count;
  };
  for (;;) {
    const float a = value[spread(1, size)], b = value[spread(2, size)], c = value[spread(3, size)];
    const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    const int64_t larger = to_front([&](float one) { return one > pivot; });
    if (k <= larger) {
      size = larger;
      continue;
    }
    value += larger, size -= larger, k -= larger;
    const int64_t equal = to_front([&](float one) { return one == pivot; });
    if (k <= equal) return pivot;
    value += equal, size -= equal, k -= equal;
  }
}

}  // namespace

Sample::Sample(const float* value, int64_t size, int64_t k)
    : rate_(static_cast<double>(k) / static_cast<double>(size)) {
  if (size <= kFew) return;
  const auto runs = static_cast<int64_t>(std::sqrt(static_cast<double>(size)) / 2);
  const int64_t stride = size / runs;
  some_.resize(static_cast<size_t>(runs * kRun));
  for (int64_t run = 0; run < runs; ++run)
    std::copy_n(value + run * stride + spread(run, stride - kRun + 1), kRun, some_.begin() + run * kRun);
  std::erase_if(some_, [](float one) { return std::isnan(one); });
}

double Sample::expected() const { return rate_ * static_cast<double>(some_.size()); }

double Sample::margin(double width) const { return width * (std::sqrt(expected() * (1 - rate_)) + 1.5); }

float Sample::at_rank(double rank, float otherwise) {
  const auto size = static_cast<int64_t>(some_.size());
  if (rank < 0 || rank >= static_cast<double>(size)) return otherwise;
  return kth_largest_of_few(some_.data(), size, static_cast<int64_t>(rank) + 1);
}

float Sample::below_kth(double width) { return at_rank(expected() + margin(width), -kInfinity); }

Bounds Sample::about_kth(double width) { return {below_kth(width), at_rank(expected() - margin(width), kInfinity)}; }

float kth_largest(const float* value, int64_t size, int64_t k) {
  const auto list = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(size));
  for (double width = 3; size > kFew && width < kWidest; width *= 4) {
    const Between found = list_between(value, size, Sample(value, size, k).about_kth(width), list.get());
    const int64_t rank = k - found.larger;
    if (rank < 1 || rank > found.count) continue;  // the sample misled, or the k-th is the lower bound
    if (found.count > size / 2) return kth_largest_of_few(list.get(), found.count, rank);
    return kth_largest(list.get(), found.count, rank);
  }
  std::copy_n(value, size, list.get());
  return kth_largest_of_few(list.get(), size, k);
}

}  // namespace mist::cpu
