#include "../arguments.h"
#include "selected.h"

namespace mist {
namespace {

// The loops look up which part of an index lies in their piece of the gradient, and rely on its order alone.
void check_ascending(const Requirements& checker, Name name, const int32_t* entries, int64_t count) {
  int32_t descents = 0;  // as wide as an entry, for vectors of them
  for (int64_t j = 1; j < count; ++j) descents |= entries[j - 1] >= entries[j];
  checker.require(descents == 0, name, " is not strictly ascending; sort it and drop repeated positions");
}

}  // namespace

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
    if (tensor.index && checker.on_cpu()) check_ascending(checker, {"index", i}, tensor.index, tensor.selected);
    tensor.code = checked_codes(checker, scale_code, t, tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
    checked.push_back(tensor);
  }
  checker.no_overlap();
  return checked;
}

}  // namespace mist
