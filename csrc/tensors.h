// What the kernels work on: plain pointers into checked tensors. No torch.
#pragma once

#include <cstdint>

namespace mist {

enum class Dtype : uint8_t { float32, bfloat16, float16 };

struct AccumulateTensor {
  float* score;
  const void* grad;
  const uint8_t* frozen;  // one bit an entry, least significant first; null: none is frozen
  int64_t size;
  Dtype dtype;  // of grad
};

struct SelectTensor {
  const float* score;
  int64_t size;
  int64_t k;
};

// The selected entries of one tensor: entry j is at index[j], or at j where the tensor is selected whole (index null).
struct DropApplyTensor {
  void* param;
  const void* grad;
  const int32_t* index;
  float* master;        // compact; null where param is float32
  const uint8_t* code;  // compact; null: no gradient is scaled
  int64_t selected;
  uint32_t ordinal;
  Dtype dtype;  // of param and grad
};

struct SgdTensor : DropApplyTensor {
  float* momentum;  // compact; null where the momentum factor is 0
};

struct AdamWTensor : DropApplyTensor {
  float* exp_avg;     // compact
  float* exp_avg_sq;  // compact
  int32_t* updates;   // compact: how often the entry was updated so far
};

struct MaskTensor {
  void* grad;
  const int32_t* index;
  const uint8_t* code;
  int64_t size;
  int64_t selected;
  uint32_t ordinal;
  Dtype dtype;
};

// Values that live on the tensors' device, so that no launch waits for the host. Null where not given.
struct DeviceScalars {
  const int64_t* step;
  const float* table;
  const float* lr;
  const float* found_inf;
  const float* grad_scale;
};

// What all tensors' draws share, beside the step.
struct Draw {
  uint64_t seed;
  uint32_t threshold;
};

}  // namespace mist
