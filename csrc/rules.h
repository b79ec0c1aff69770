// What happens to one entry: its score, its SGD update. One copy for host and device, no torch.
//
// Every product and sum is rounded separately (the build forbids contraction into fused multiply-adds), so CPU, CUDA
// and the plain-PyTorch oracle agree bit for bit in fp32.
#pragma once

#include "philox.h"

namespace mist {

// MIST, sensitivity: the squared gradient of a batch is added up over the scoring epoch.
MIST_HOST_DEVICE inline float accumulated(float score, float grad, float scale) {
  return score + scale * (grad * grad);
}

struct Sgd {
  float lr;
  float momentum;
  float weight_decay;
};

// torch.optim.SGD's order for one kept entry: decay, then momentum, then the update.
MIST_HOST_DEVICE inline void apply_sgd(const Sgd& sgd, float grad, float& param, float& momentum_buffer) {
  const float decayed = grad + sgd.weight_decay * param;
  momentum_buffer = sgd.momentum * momentum_buffer + decayed;
  param = param - sgd.lr * momentum_buffer;
}

}  // namespace mist
