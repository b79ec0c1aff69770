// Connects the loops on the CPU to torch: each op checks its arguments and hands over plain pointers.
//
// Lists come by reference: TORCH_BOX owns them and would copy each tensor.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <functional>

#include "../arguments.h"
#include "kernels.h"
#include "parallel.h"

namespace mist::cpu {
namespace {

void accumulate_op(const TensorList& score, const TensorList& grad, const OptionalTensorList& frozen, double scale) {
  accumulate(check_accumulate(score, grad, frozen), static_cast<float>(scale));
}

TensorList select_op(const TensorList& score, const std::vector<int64_t>& k) {
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

// The places say which entries of a packed vector belong to which piece, so they must be those of this very draw. The
// vector ends where they do, unless it may be longer.
template <class T>
void require_places(const char* op, const std::vector<T>& tensors, const Draw& draw, int64_t step, const Tensor& packed,
                    const Tensor& given, bool longer = false) {
  const std::vector<Listed> lists(tensors.begin(), tensors.end());
  std::vector<int64_t> made(static_cast<size_t>(given.numel()));
  places(lists, draw, step, made.data());
  const auto* const values = static_cast<const int64_t*>(given.const_data_ptr());
  const int64_t end = values[made.size() - 1], length = packed.numel();
  const bool right = longer ? end <= length : end == length;
  if (!right || !std::equal(made.begin(), made.end(), values)) fail_places(op, end, right ? end : length);
}

void drop_apply_sgd_op(const TensorList& param, const TensorList& grad, const OptionalTensorList& index,
                       const TensorList& momentum_buffer, const TensorList& master,
                       const OptionalTensorList& scale_code, const std::optional<Tensor>& table,
                       const std::vector<int64_t>& ordinal, const Tensor& lr, double momentum, double weight_decay,
                       int64_t threshold, int64_t seed, const Tensor& step, const std::optional<Tensor>& found_inf,
                       const std::optional<Tensor>& grad_scale, const std::vector<int64_t>& first,
                       const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  Checker checker("drop_apply_sgd_", param.at(0));
  const DeviceScalars scalars = check_scalars(checker, scale_code, table, step, lr, found_inf, grad_scale);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors =
      check_drop_apply_sgd(checker, {param, grad, index, master, scale_code, ordinal, first, packed, places},
                           momentum_buffer, momentum != 0);
  if (packed) require_places("drop_apply_sgd_", tensors, draw, *scalars.step, *packed, *places);
  drop_apply<Sgd>(tensors, draw, scalars, sgd_options(momentum, weight_decay), packed_gradients(packed, places));
}

void drop_apply_adamw_op(const TensorList& param, const TensorList& grad, const OptionalTensorList& index,
                         const TensorList& exp_avg, const TensorList& exp_avg_sq, const TensorList& updates,
                         const TensorList& master, const OptionalTensorList& scale_code,
                         const std::optional<Tensor>& table, const std::vector<int64_t>& ordinal, const Tensor& lr,
                         double beta1, double beta2, double eps, double weight_decay, const Tensor& correction,
                         int64_t threshold, int64_t seed, const Tensor& step, const std::optional<Tensor>& found_inf,
                         const std::optional<Tensor>& grad_scale, const std::vector<int64_t>& first,
                         const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  Checker checker("drop_apply_adamw_", param.at(0));
  const DeviceScalars scalars = check_scalars(checker, scale_code, table, step, lr, found_inf, grad_scale);
  const AdamW::Options options = check_adamw(checker, beta1, beta2, eps, weight_decay, correction);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_drop_apply_adamw(
      checker, {param, grad, index, master, scale_code, ordinal, first, packed, places}, exp_avg, exp_avg_sq, updates);
  if (packed) require_places("drop_apply_adamw_", tensors, draw, *scalars.step, *packed, *places);
  drop_apply<AdamW>(tensors, draw, scalars, options, packed_gradients(packed, places));
}

void mask_op(const TensorList& grad, const OptionalTensorList& index, const OptionalTensorList& scale_code,
             const std::optional<Tensor>& table, const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed,
             const Tensor& step, const std::vector<int64_t>& first) {
  Checker checker("mask_", grad.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, scale_code, table, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_mask(checker, grad, index, scale_code, ordinal, first);
  if (const int64_t wrong = find_descending(tensors); wrong >= 0) fail_descending("mask_", wrong);
  mask(tensors, draw, scalars);
}

Tensor places_op(const std::vector<int64_t>& count, const std::vector<int64_t>& first,
                 const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed, int64_t step) {
  const Requirements checker{"places"};
  check_step(checker, step);
  const Draw draw = check_draw(checker, threshold, seed);
  const std::vector<Listed> lists = check_places(checker, count, first, ordinal);
  const int64_t size[] = {piece_count(lists) + 1};
  const Tensor made = torch::stable::empty({size, 1}, torch::headeronly::ScalarType::Long);
  places(lists, draw, step, static_cast<int64_t*>(made.mutable_data_ptr()));
  return made;
}

void pack_op(const Tensor& packed, const TensorList& grad, const OptionalTensorList& index, const Tensor& places,
             const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed,
             const Tensor& step) {
  Checker checker("pack_", grad.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, {}, std::nullopt, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_pack(checker, packed, grad, index, places, first, ordinal);
  require_places("pack_", tensors, draw, *scalars.step, packed, places);
  pack(tensors, draw, *scalars.step, packed_output(packed, places));
}

void sampled_weight_grad_op(const Tensor& packed, const TensorList& grad_output, const TensorList& input,
                            const OptionalTensorList& index, const Tensor& places, const std::vector<int64_t>& first,
                            const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed, const Tensor& step) {
  Checker checker("sampled_weight_grad_", grad_output.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, {}, std::nullopt, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_sampled_weight_grad(checker, packed, grad_output, input, index, places, first, ordinal);
  require_places("sampled_weight_grad_", tensors, draw, *scalars.step, packed, places, true);
  sampled_weight_grad(tensors, draw, *scalars.step, static_cast<float*>(packed.mutable_data_ptr()),
                      static_cast<const int64_t*>(places.const_data_ptr()));
}

void write_values_op(const TensorList& param, const OptionalTensorList& index, const TensorList& value,
                     const TensorList& expected, const OptionalTensorList& then_index, const TensorList& then_value,
                     const TensorList& then_expected) {
  const auto tensors = check_write_values(param, {index, value, expected}, {then_index, then_value, then_expected});
  if (const int64_t wrong = find_descending(tensors); wrong >= 0)
    fail_descending("write_values_", wrong / 2, wrong % 2 ? "then_index" : "index");
  if (const Mismatch mismatch = write_values(tensors); mismatch.tensor >= 0) fail_mismatch(mismatch);
}

Tensor new_vector(int64_t count, torch::headeronly::ScalarType type) {
  const int64_t size[] = {count};
  return torch::stable::empty({size, 1}, type);
}

// Calls body(list number) for each of them, on several threads.
void for_each_list(size_t count, const std::function<void(size_t)>& body) {
  parallel_for(static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(static_cast<size_t>(t));
  });
}

TensorList encode_gaps_op(const TensorList& index) {
  check_encode_gaps(index);
  const auto entries = [&](size_t t) { return static_cast<const int32_t*>(index[t].const_data_ptr()); };
  std::vector<int64_t> escapes(index.size());
  for_each_list(index.size(), [&](size_t t) { escapes[t] = count_escapes(entries(t), index[t].numel()); });
  TensorList code;
  std::vector<uint8_t*> bytes;
  for (size_t t = 0; t < index.size(); ++t) {
    if (escapes[t] < 0) fail_descending("encode_gaps", static_cast<int64_t>(t));
    code.push_back(new_vector(index[t].numel() + 4 * escapes[t], torch::headeronly::ScalarType::Byte));
    bytes.push_back(static_cast<uint8_t*>(code[t].mutable_data_ptr()));
  }
  for_each_list(index.size(), [&](size_t t) { encode_gaps(entries(t), index[t].numel(), escapes[t], bytes[t]); });
  return code;
}

TensorList decode_gaps_op(const TensorList& code, const std::vector<int64_t>& count, const std::vector<int64_t>& size) {
  check_decode_gaps(code, count, size);
  TensorList index;
  std::vector<int32_t*> entries;
  for (const int64_t positions : count) {
    index.push_back(new_vector(positions, torch::headeronly::ScalarType::Int));
    entries.push_back(static_cast<int32_t*>(index.back().mutable_data_ptr()));
  }
  std::vector<GapFault> faults(code.size());
  for_each_list(code.size(), [&](size_t t) {
    const auto* const bytes = static_cast<const uint8_t*>(code[t].const_data_ptr());
    faults[t] = decode_gaps(bytes, code[t].numel(), count[t], size[t], entries[t]);
  });
  for (size_t t = 0; t < code.size(); ++t)
    if (faults[t] != GapFault::none) fail_gaps(t, faults[t], count[t], size[t]);
  return index;
}

}  // namespace
}  // namespace mist::cpu

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CPU, m) {
  m.impl("accumulate_", TORCH_BOX(&mist::cpu::accumulate_op));
  m.impl("select", TORCH_BOX(&mist::cpu::select_op));
  m.impl("drop_apply_sgd_", TORCH_BOX(&mist::cpu::drop_apply_sgd_op));
  m.impl("drop_apply_adamw_", TORCH_BOX(&mist::cpu::drop_apply_adamw_op));
  m.impl("mask_", TORCH_BOX(&mist::cpu::mask_op));
  m.impl("pack_", TORCH_BOX(&mist::cpu::pack_op));
  m.impl("sampled_weight_grad_", TORCH_BOX(&mist::cpu::sampled_weight_grad_op));
  m.impl("write_values_", TORCH_BOX(&mist::cpu::write_values_op));
  m.impl("encode_gaps", TORCH_BOX(&mist::cpu::encode_gaps_op));
  m.impl("decode_gaps", TORCH_BOX(&mist::cpu::decode_gaps_op));
}

// It has no tensor that would choose a device.
STABLE_TORCH_LIBRARY_IMPL(mist_ext, CompositeExplicitAutograd, m) {
  m.impl("places", TORCH_BOX(&mist::cpu::places_op));
}
