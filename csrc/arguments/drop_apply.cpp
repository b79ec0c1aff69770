// drop_apply_sgd_ and drop_apply_adamw_: what they share, then each one's own state and options.
#include <type_traits>

#include "../arguments.h"
#include "packed.h"
#include "selected.h"

namespace mist {
namespace {

// Optimiser state: float32, or int32 counts.
template <class Value>
Value* checked_compact(Checker& checker, Name name, const Tensor& tensor, int64_t selected) {
  checker.placed(name, tensor);
  checker.typed(name, tensor, std::is_same_v<Value, float> ? ScalarType::Float : ScalarType::Int);
  checker.sized(name, tensor, selected, "one for each selected entry");
  return checker.written<Value>(name, tensor, selected);
}

// What all drop_apply ops share of one tensor.
void check_drop_apply(Checker& checker, const DropApplyArguments& given, size_t t, DropApplyTensor& tensor) {
  const auto i = static_cast<int64_t>(t);
  const Name param_name{"param", i}, grad_name{"grad", i};
  const Tensor& param = given.param[t];
  checker.placed(param_name, param);
  tensor.dtype = checker.floating(param_name, param);
  const int64_t size = checker.addressable(param_name, param);
  tensor.param = checker.written(param_name, param, size, itemsize(tensor.dtype));
  if (!given.packed) {
    const Tensor& grad = given.grad[t];
    checker.placed(grad_name, grad);
    checker.same_dtype(grad_name, grad, param_name, param);
    checker.same_shape(grad_name, grad, param_name, param);
    tensor.grad = checker.read(grad_name, grad, size, itemsize(tensor.dtype));
  }
  tensor.index = checked_index(checker, {"index", i}, given.index[t], size, tensor.selected);
  if (tensor.dtype != Dtype::float32) {
    if (given.master.empty())
      fail(checker.op, ": ", param_name, " has dtype ", dtype_name(param),
           ", which needs a compact float32 master, but master is empty");
    tensor.master = checked_compact<float>(checker, {"master", i}, given.master[t], tensor.selected);
  } else if (!given.master.empty()) {
    checker.sized({"master", i}, given.master[t], 0, "since a float32 parameter has no master");
  }
  tensor.code = checked_codes(checker, given.scale_code, t, tensor.selected);
  check_listed(checker, t, given.first, given.ordinal, tensor);
}

// Checks every tensor; `state(tensor, t)` adds what the rule keeps for it.
template <class SomeTensor, class State>
std::vector<SomeTensor> checked_drop_apply(Checker& checker, const DropApplyArguments& given, const State& state) {
  const size_t count = given.param.size();
  const bool packed = given.packed.has_value();
  checker.require(packed == given.places.has_value(), packed ? "packed" : "places", " is given, but ",
                  packed ? "places" : "packed", " is None; give both or neither");
  checker.require(!packed || given.grad.empty(), "packed is given, but grad has ", given.grad.size(),
                  " tensors; give an empty list");
  if (!packed) checker.length("grad", given.grad.size(), "param", count);
  checker.length("index", given.index.size(), "param", count);
  if (!given.master.empty()) checker.length("master", given.master.size(), "param", count);
  if (!given.scale_code.empty()) checker.length("scale_code", given.scale_code.size(), "param", count);
  checker.length("ordinal", given.ordinal.size(), "param", count);
  if (!given.first.empty()) checker.length("first", given.first.size(), "param", count);
  checker.reserve(8 * count);  // as many tensors as the rule with the longest state has of each
  std::vector<SomeTensor> checked(count);
  for (size_t t = 0; t < count; ++t) {
    check_drop_apply(checker, given, t, checked[t]);
    state(checked[t], t);
  }
  number_pieces(checker, checked);
  if (packed) check_packed(checker, *given.packed, *given.places, piece_count(checked), false);
  checker.no_overlap();
  return checked;
}

}  // namespace

std::vector<SgdTensor> check_drop_apply_sgd(Checker& checker, const DropApplyArguments& arguments,
                                            const TensorList& momentum_buffer, bool has_momentum) {
  if (has_momentum || !momentum_buffer.empty())
    checker.length("momentum_buffer", momentum_buffer.size(), "param", arguments.param.size());
  return checked_drop_apply<SgdTensor>(checker, arguments, [&](SgdTensor& tensor, size_t t) {
    if (momentum_buffer.empty()) return;
    const Name name{"momentum_buffer", static_cast<int64_t>(t)};
    tensor.momentum = checked_compact<float>(checker, name, momentum_buffer[t], tensor.selected);
  });
}

std::vector<AdamWTensor> check_drop_apply_adamw(Checker& checker, const DropApplyArguments& arguments,
                                                const TensorList& exp_avg, const TensorList& exp_avg_sq,
                                                const TensorList& updates) {
  checker.length("exp_avg", exp_avg.size(), "param", arguments.param.size());
  checker.length("exp_avg_sq", exp_avg_sq.size(), "param", arguments.param.size());
  checker.length("updates", updates.size(), "param", arguments.param.size());
  return checked_drop_apply<AdamWTensor>(checker, arguments, [&](AdamWTensor& tensor, size_t t) {
    const auto i = static_cast<int64_t>(t);
    tensor.exp_avg = checked_compact<float>(checker, {"exp_avg", i}, exp_avg[t], tensor.selected);
    tensor.exp_avg_sq = checked_compact<float>(checker, {"exp_avg_sq", i}, exp_avg_sq[t], tensor.selected);
    tensor.updates = checked_compact<int32_t>(checker, {"updates", i}, updates[t], tensor.selected);
  });
}

Sgd::Options sgd_options(double momentum, double weight_decay) {
  return {static_cast<float>(momentum), static_cast<float>(weight_decay)};
}

AdamW::Options check_adamw(Checker& checker, double beta1, double beta2, double eps, double weight_decay,
                           const Tensor& correction) {
  checker.placed({"correction"}, correction);
  checker.typed({"correction"}, correction, ScalarType::Float);
  if (correction.dim() != 2 || correction.size(0) != 2 || correction.size(1) == 0)
    fail("drop_apply_adamw_: correction has shape ", shape_name(correction), ", expected [2, n] with n of at least 1");
  return {static_cast<float>(beta1),
          static_cast<float>(1 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1 - beta2),
          static_cast<float>(eps),
          static_cast<float>(weight_decay),
          checker.read<float>({"correction"}, correction, correction.numel()),
          correction.size(1)};
}

}  // namespace mist
