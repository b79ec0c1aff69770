// accumulate_: score += scale * grad^2, frozen entries left alone. One pass over all tensors.
#include <cstring>

#include "isa.h"
#include "kernels.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 1 << 15;

namespace plain {
#include "accumulate_loops.h"
}  // namespace plain
#if defined(__x86_64__)
#include "target/avx2_begin.h"
namespace avx2 {
#include "accumulate_loops.h"
}  // namespace avx2
#include "target/end.h"

#include "target/avx512_begin.h"
namespace avx512 {
#include "accumulate_loops.h"
}  // namespace avx512
#include "target/end.h"
constexpr Variants kAdd{&plain::add, &avx2::add, &avx512::add};
#else
constexpr Variants<decltype(&plain::add)> kAdd{&plain::add, nullptr, nullptr};
#endif

}  // namespace

void accumulate(const std::vector<AccumulateTensor>& tensors, float scale) {
  const auto add = kAdd.chosen();
  for_each_piece(
      tensors, kPiece, [](const AccumulateTensor& tensor) { return Range{0, tensor.size}; },
      [&](size_t t, int64_t begin, int64_t end) { add(tensors[t], begin, end, scale); });
}

}  // namespace mist::cpu
