// Connects the loops on the CPU to torch: each op checks its arguments and hands over plain pointers.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../arguments.h"
#include "kernels.h"

namespace mist::cpu {
namespace {

void accumulate_op(TensorList score, TensorList grad, OptionalTensorList frozen, double scale) {
  accumulate(check_accumulate(score, grad, frozen), static_cast<float>(scale));
}

TensorList select_op(TensorList score, std::vector<int64_t> k) {
  const auto tensors = check_select(score, k);
  TensorList index;
  std::vector<int32_t*> destination;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const int64_t size[] = {k[t]};
    index.push_back(torch::stable::new_empty(score[t], {size, 1}, torch::headeronly::ScalarType::Int));
    destination.push_back(static_cast<int32_t*>(index[t].mutable_data_ptr()));
  }
  const Nan nan = select(tensors, destination);
  if (nan.tensor >= 0) fail_nan("select", static_cast<size_t>(nan.tensor), nan.entry);
  return index;
}

void drop_apply_sgd_op(TensorList param, TensorList grad, OptionalTensorList index, TensorList momentum_buffer,
                       TensorList master, OptionalTensorList scale_code, std::optional<Tensor> table,
                       std::vector<int64_t> ordinal, Tensor lr, double momentum, double weight_decay, int64_t threshold,
                       int64_t seed, Tensor step, std::optional<Tensor> found_inf, std::optional<Tensor> grad_scale) {
  const auto tensors =
      check_drop_apply_sgd({param, grad, index, master, scale_code, ordinal}, momentum_buffer, momentum != 0);
  const DeviceScalars scalars =
      check_scalars("drop_apply_sgd_", param[0], scale_code, table, step, lr, found_inf, grad_scale);
  drop_apply<Sgd>(tensors, check_draw("drop_apply_sgd_", threshold, seed), scalars,
                  sgd_options(momentum, weight_decay));
}

void drop_apply_adamw_op(TensorList param, TensorList grad, OptionalTensorList index, TensorList exp_avg,
                         TensorList exp_avg_sq, TensorList updates, TensorList master, OptionalTensorList scale_code,
                         std::optional<Tensor> table, std::vector<int64_t> ordinal, Tensor lr, double beta1,
                         double beta2, double eps, double weight_decay, Tensor correction, int64_t threshold,
                         int64_t seed, Tensor step, std::optional<Tensor> found_inf, std::optional<Tensor> grad_scale) {
  const auto tensors =
      check_drop_apply_adamw({param, grad, index, master, scale_code, ordinal}, exp_avg, exp_avg_sq, updates);
  const DeviceScalars scalars =
      check_scalars("drop_apply_adamw_", param[0], scale_code, table, step, lr, found_inf, grad_scale);
  drop_apply<AdamW>(tensors, check_draw("drop_apply_adamw_", threshold, seed), scalars,
                    check_adamw(param[0], beta1, beta2, eps, weight_decay, correction));
}

void mask_op(TensorList grad, OptionalTensorList index, OptionalTensorList scale_code, std::optional<Tensor> table,
             std::vector<int64_t> ordinal, int64_t threshold, int64_t seed, Tensor step) {
  const auto tensors = check_mask(grad, index, scale_code, ordinal);
  const DeviceScalars scalars =
      check_scalars("mask_", grad[0], scale_code, table, step, std::nullopt, std::nullopt, std::nullopt);
  mask(tensors, check_draw("mask_", threshold, seed), scalars);
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) {
  m.impl("accumulate_", TORCH_BOX(&mist::cpu::accumulate_op));
  m.impl("select", TORCH_BOX(&mist::cpu::select_op));
  m.impl("drop_apply_sgd_", TORCH_BOX(&mist::cpu::drop_apply_sgd_op));
  m.impl("drop_apply_adamw_", TORCH_BOX(&mist::cpu::drop_apply_adamw_op));
  m.impl("mask_", TORCH_BOX(&mist::cpu::mask_op));
}
