// places and pack_, and their vector as other ops are given it.
#include "../arguments.h"
#include "packed.h"
#include "selected.h"

namespace mist {
namespace {

template <class Pointer>
PackedVector<Pointer> packed_vector(const Tensor& packed, const Tensor& places, Pointer values) {
  const Dtype dtype = packed.scalar_type() == ScalarType::BFloat16 ? Dtype::bfloat16 : Dtype::float32;
  return {values, static_cast<const int64_t*>(places.const_data_ptr()), packed.numel(), dtype};
}

}  // namespace

std::vector<Listed> check_places(const Requirements& checker, const std::vector<int64_t>& count,
                                 const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal) {
  checker.require(ordinal.size() == count.size(), "ordinal has ", ordinal.size(), " entries, but count has ",
                  count.size());
  checker.require(first.empty() || first.size() == count.size(), "first has ", first.size(), " entries, but count has ",
                  count.size());
  std::vector<Listed> lists(count.size());
  for (size_t t = 0; t < count.size(); ++t) {
    checker.require(count[t] >= 0 && count[t] <= kLongestList, "count[", t, "] is ", count[t], ", expected 0 to ",
                    kLongestList);
    lists[t].selected = count[t];
    check_listed(checker, t, first, ordinal, lists[t]);
  }
  number_pieces(checker, lists);
  return lists;
}

std::vector<PackTensor> check_pack(Checker& checker, const Tensor& packed, const TensorList& grad,
                                   const OptionalTensorList& index, const Tensor& places,
                                   const std::vector<int64_t>& first, const std::vector<int64_t>& ordinal) {
  checker.length("index", index.size(), "grad", grad.size());
  checker.length("ordinal", ordinal.size(), "grad", grad.size());
  if (!first.empty()) checker.length("first", first.size(), "grad", grad.size());
  std::vector<PackTensor> checked(grad.size());
  for (size_t t = 0; t < grad.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name name{"grad", i};
    PackTensor& tensor = checked[t];
    checker.placed(name, grad[t]);
    tensor.dtype = checker.floating(name, grad[t]);
    const int64_t size = checker.addressable(name, grad[t]);
    tensor.grad = checker.read(name, grad[t], size, itemsize(tensor.dtype));
    tensor.index = checked_index(checker, {"index", i}, index[t], size, tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
  }
  number_pieces(checker, checked);
  check_packed(checker, packed, places, piece_count(checked), true);
  checker.no_overlap();
  return checked;
}

Packed packed_gradients(const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  return packed ? packed_vector(*packed, *places, packed->const_data_ptr()) : Packed{};
}

PackedOutput packed_output(const Tensor& packed, const Tensor& places) {
  return packed_vector(packed, places, packed.mutable_data_ptr());
}

void fail_places(const char* op, int64_t end, int64_t length) {
  if (end != length) fail(op, ": places end at ", end, ", but packed has ", length, " entries");
  fail(op, ": places do not fit what this step keeps; make them by ops.places for the same lists and step");
}

}  // namespace mist
