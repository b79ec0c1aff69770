// What happens to one entry: its score, its SGD or AdamW update. One copy for host and device, no torch.
//
// Every product and sum is rounded separately (the build forbids contraction into fused multiply-adds), so CPU, CUDA
// and the plain-PyTorch oracle agree bit for bit in fp32.
#pragma once

#include <cmath>

#include "philox.h"
#include "tensors.h"

namespace mist {

// MIST, sensitivity: the squared gradient of a batch is added up over the scoring epoch.
MIST_HOST_DEVICE inline float accumulated(float score, float grad, float scale) {
  return score + scale * (grad * grad);
}

// torch.optim.SGD's order for one kept entry: decay, then momentum, then the update.
struct Sgd {
  using Tensor = SgdTensor;
  struct Options {
    float momentum;
    float weight_decay;
  };

  Options options;
  float lr;

  MIST_HOST_DEVICE void operator()(const SgdTensor& tensor, int64_t j, float grad, float& param) const {
    float momentum = tensor.momentum ? tensor.momentum[j] : 0.0f;
    momentum = options.momentum * momentum + (grad + options.weight_decay * param);
    param = param - lr * momentum;
    if (tensor.momentum) tensor.momentum[j] = momentum;
  }
};

// torch.optim.AdamW's order for one kept entry: decay, then both averages, then the update. The averages' bias is
// corrected by the entry's own number of updates, since they began at its first one.
struct AdamW {
  using Tensor = AdamWTensor;
  struct Options {
    float beta1, one_minus_beta1;
    float beta2, one_minus_beta2;
    float eps;
    float weight_decay;
    const float* correction;  // 1 - beta1^n for n = 0 to corrections - 1, then sqrt(1 - beta2^n)
    int64_t corrections;      // more updates than that are corrected like the last: both are 1 by then
  };

  Options options;
  float lr;

  MIST_HOST_DEVICE void operator()(const AdamWTensor& tensor, int64_t j, float grad, float& param) const {
    const int32_t updates = tensor.updates[j] + 1;
    const auto column = static_cast<uint32_t>(updates);
    const int64_t n = column < static_cast<uint64_t>(options.corrections) ? column : options.corrections - 1;
    const float average = options.beta1 * tensor.exp_avg[j] + options.one_minus_beta1 * grad;
    const float square = options.beta2 * tensor.exp_avg_sq[j] + options.one_minus_beta2 * (grad * grad);
    const float decayed = param * (1.0f - lr * options.weight_decay);
    const float root = sqrtf(square) / options.correction[options.corrections + n] + options.eps;
    param = decayed - lr * (average / options.correction[n] / root);
    tensor.exp_avg[j] = average;
    tensor.exp_avg_sq[j] = square;
    tensor.updates[j] = updates;
  }
};

}  // namespace mist
