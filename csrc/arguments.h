// The ops' arguments: torch tensors come in, are checked, and leave as plain pointers. Nothing is changed on an error.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "arguments/checker.h"
#include "rules.h"
#include "tensors.h"

namespace mist {

using torch::stable::Tensor;
using TensorList = std::vector<Tensor>;
using OptionalTensorList = std::vector<std::optional<Tensor>>;

std::vector<AccumulateTensor> check_accumulate(const TensorList& score, const TensorList& grad,
                                               const OptionalTensorList& frozen);

std::vector<SelectTensor> check_select(const TensorList& score, const std::vector<int64_t>& k);

// The arguments that every drop_apply op has.
struct DropApplyArguments {
  const TensorList& param;
  const TensorList& grad;
  const OptionalTensorList& index;
  const TensorList& master;
  const OptionalTensorList& scale_code;
  const std::vector<int64_t>& ordinal;
  const std::vector<int64_t>& first;
  const std::optional<Tensor>& packed;
  const std::optional<Tensor>& places;
};

std::vector<SgdTensor> check_drop_apply_sgd(Checker& checker, const DropApplyArguments& arguments,
                                            const TensorList& momentum_buffer, bool has_momentum);

std::vector<AdamWTensor> check_drop_apply_adamw(Checker& checker, const DropApplyArguments& arguments,
                                                const TensorList& exp_avg, const TensorList& exp_avg_sq,
                                                const TensorList& updates);

Sgd::Options sgd_options(double momentum, double weight_decay);

AdamW::Options check_adamw(Checker& checker, double beta1, double beta2, double eps, double weight_decay,
                           const Tensor& correction);

std::vector<MaskTensor> check_mask(Checker& checker, const TensorList& grad, const OptionalTensorList& index,
                                   const OptionalTensorList& scale_code, const std::vector<int64_t>& ordinal,
                                   const std::vector<int64_t>& first);

std::vector<Listed> check_places(const Requirements& checker, const std::vector<int64_t>& count,
                                 const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal);

std::vector<PackTensor> check_pack(Checker& checker, const Tensor& packed, const TensorList& grad,
                                   const OptionalTensorList& index, const Tensor& places,
                                   const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal);

std::vector<LinearTensor> check_sampled_weight_grad(Checker& checker, const Tensor& packed,
                                                    const TensorList& grad_output, const TensorList& input,
                                                    const OptionalTensorList& index, const Tensor& places,
                                                    const std::vector<int64_t>& first,
                                                    const std::vector<int64_t>& ordinal);

// The arguments of one of the two replacements of write_values_.
struct ReplacementArguments {
  const OptionalTensorList& index;
  const TensorList& value;
  const TensorList& expected;
};

std::vector<WriteTensor> check_write_values(const TensorList& param, const ReplacementArguments& first,
                                            const ReplacementArguments& then);

[[noreturn]] void fail_mismatch(const Mismatch& mismatch);

void check_encode_gaps(const TensorList& index);

void check_decode_gaps(const TensorList& code, const std::vector<int64_t>& count, const std::vector<int64_t>& size);

// Of arguments that were checked.
Packed packed_gradients(const std::optional<Tensor>& packed, const std::optional<Tensor>& places);
PackedOutput packed_output(const Tensor& packed, const Tensor& places);

// What all tensors of a call share is checked before them, since a written tensor must not lie in it.
DeviceScalars check_scalars(Checker& checker, const OptionalTensorList& scale_code, const std::optional<Tensor>& table,
                            const Tensor& step, const std::optional<Tensor>& lr, const std::optional<Tensor>& found_inf,
                            const std::optional<Tensor>& grad_scale);

// A threshold is the integer T of the keep rule, 0..65536.
Draw check_draw(const Requirements& checker, int64_t threshold, int64_t seed);

void check_step(const Requirements& checker, int64_t step);

// The keep rule of `n` entries of a list from `first` on.
KeepRule check_keep_mask(int64_t seed, int64_t ordinal, int64_t step, int64_t n, int64_t threshold, int64_t first);

// What is wrong with places that differ from those that the keep rule gives.
[[noreturn]] void fail_places(const char* op, int64_t end, int64_t length);

[[noreturn]] void fail_descending(const char* op, int64_t tensor, const char* index = "index");

[[noreturn]] void fail_gaps(size_t tensor, GapFault fault, int64_t count, int64_t size);

[[noreturn]] void fail_nan(const char* op, size_t tensor, int64_t entry);

}  // namespace mist
