#include <limits>

#include "../arguments.h"
#include "packed.h"
#include "selected.h"

namespace mist {
namespace {

void require_matrix(const Checker& checker, Name name, const Tensor& tensor) {
  checker.placed(name, tensor);
  if (tensor.dim() != 2)
    checker.require(false, name, " has shape ", shape_name(tensor), ", expected two dimensions: tokens and features");
}

}  // namespace

std::vector<LinearTensor> check_sampled_weight_grad(Checker& checker, const Tensor& packed,
                                                    const TensorList& grad_output, const TensorList& input,
                                                    const OptionalTensorList& index, const Tensor& places,
                                                    const std::vector<int64_t>& first,
                                                    const std::vector<int64_t>& ordinal) {
  checker.length("input", input.size(), "grad_output", grad_output.size());
  checker.length("index", index.size(), "grad_output", grad_output.size());
  checker.length("ordinal", ordinal.size(), "grad_output", grad_output.size());
  if (!first.empty()) checker.length("first", first.size(), "grad_output", grad_output.size());
  std::vector<LinearTensor> checked(grad_output.size());
  for (size_t t = 0; t < grad_output.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name gradient{"grad_output", i}, inputs{"input", i};
    LinearTensor& tensor = checked[t];
    require_matrix(checker, gradient, grad_output[t]);
    require_matrix(checker, inputs, input[t]);
    tensor.dtype = checker.floating(gradient, grad_output[t]);
    checker.same_dtype(inputs, input[t], gradient, grad_output[t]);
    tensor.tokens = grad_output[t].size(0);
    tensor.outputs = grad_output[t].size(1);
    tensor.inputs = input[t].size(1);
    checker.require(input[t].size(0) == tensor.tokens, inputs, " has ", input[t].size(0), " tokens, but ", gradient,
                    " has ", tensor.tokens);
    const int64_t most = std::numeric_limits<int32_t>::max();
    checker.require(tensor.outputs <= most && tensor.inputs <= most && tensor.outputs * tensor.inputs <= most, "a ",
                    tensor.outputs, " x ", tensor.inputs, " weight has more than ", most,
                    " entries; an index is int32. Split ", gradient);
    const int64_t size = tensor.outputs * tensor.inputs;
    tensor.grad_output = checker.read(gradient, grad_output[t], grad_output[t].numel(), itemsize(tensor.dtype));
    tensor.input = checker.read(inputs, input[t], input[t].numel(), itemsize(tensor.dtype));
    tensor.index = checked_index(checker, {"index", i}, index[t], size, tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
  }
  number_pieces(checker, checked);
  check_packed(checker, packed, places, piece_count(checked), true);
  checker.typed({"packed"}, packed, ScalarType::Float);
  checker.no_overlap();
  return checked;
}

}  // namespace mist
