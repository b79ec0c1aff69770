#include "parallel.h"

#include <torch/csrc/stable/ops.h>

namespace mist::cpu {

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  torch::stable::parallel_for(0, count, grain, body);
}

}  // namespace mist::cpu
