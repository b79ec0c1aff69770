#include "../arguments.h"
#include "selected.h"

namespace mist {

std::vector<MaskTensor> check_mask(Checker& checker, const TensorList& grad, const OptionalTensorList& index,
                                   const OptionalTensorList& scale_code, const std::vector<int64_t>& ordinal,
                                   const std::vector<int64_t>& first) {
  checker.length("index", index.size(), "grad", grad.size());
  if (!scale_code.empty()) checker.length("scale_code", scale_code.size(), "grad", grad.size());
  checker.length("ordinal", ordinal.size(), "grad", grad.size());
  if (!first.empty()) checker.length("first", first.size(), "grad", grad.size());
  std::vector<MaskTensor> checked;
  checked.reserve(grad.size());
  for (size_t t = 0; t < grad.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name name{"grad", i};
    MaskTensor tensor{};
    checker.placed(name, grad[t]);
    tensor.dtype = checker.floating(name, grad[t]);
    tensor.size = checker.addressable(name, grad[t]);
    tensor.grad = checker.written(name, grad[t], tensor.size, itemsize(tensor.dtype));
    tensor.index = checked_index(checker, {"index", i}, index[t], tensor.size, tensor.selected);
    tensor.code = checked_codes(checker, scale_code, t, tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
    checked.push_back(tensor);
  }
  checker.no_overlap();
  return checked;
}

void fail_descending(const char* op, int64_t tensor, const char* index) {
  fail(op, ": ", index, "[", tensor, "] is not strictly ascending; sort it and drop repeated positions");
}

}  // namespace mist
