// The ops' arguments: torch tensors come in, are checked, and leave as plain pointers. Nothing is changed on an error.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace mist {

using torch::stable::Tensor;
using TensorList = std::vector<Tensor>;
using OptionalTensorList = std::vector<std::optional<Tensor>>;

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
struct SgdTensor {
  void* param;
  const void* grad;
  const int32_t* index;
  float* momentum;      // compact; null where the momentum factor is 0
  float* master;        // compact; null where param is float32
  const uint8_t* code;  // compact; null: no gradient is scaled
  int64_t selected;
  uint32_t ordinal;
  Dtype dtype;  // of param and grad
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

struct SgdOptions {
  float momentum;
  float weight_decay;
  uint64_t seed;
  uint32_t threshold;
};

std::vector<AccumulateTensor> check_accumulate(const TensorList& score, const TensorList& grad,
                                               const OptionalTensorList& frozen);

std::vector<SelectTensor> check_select(const TensorList& score, const std::vector<int64_t>& k);

std::vector<SgdTensor> check_drop_apply_sgd(const TensorList& param, const TensorList& grad,
                                            const OptionalTensorList& index, const TensorList& momentum_buffer,
                                            const TensorList& master, const OptionalTensorList& scale_code,
                                            const std::vector<int64_t>& ordinal, bool has_momentum);

std::vector<MaskTensor> check_mask(const TensorList& grad, const OptionalTensorList& index,
                                   const OptionalTensorList& scale_code, const std::vector<int64_t>& ordinal);

DeviceScalars check_scalars(const char* op, const Tensor& first, const OptionalTensorList& scale_code,
                            const std::optional<Tensor>& table, const Tensor& step, const std::optional<Tensor>& lr,
                            const std::optional<Tensor>& found_inf, const std::optional<Tensor>& grad_scale);

// The integer T of the keep rule, 0..65536.
uint32_t check_threshold(const char* op, int64_t threshold);

[[noreturn]] void fail_nan(const char* op, size_t tensor, int64_t entry);

}  // namespace mist
