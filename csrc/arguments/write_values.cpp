#include "../arguments.h"
#include "selected.h"

namespace mist {
namespace {

struct ReplacementNames {
  const char* index;
  const char* value;
  const char* expected;
};

constexpr ReplacementNames kFirst{"index", "value", "expected"};
constexpr ReplacementNames kThen{"then_index", "then_value", "then_expected"};

const void* checked_values(Checker& checker, Name name, const Tensor& values, const TensorList& param, size_t t,
                           int64_t selected, size_t itemsize) {
  checker.placed(name, values);
  checker.same_dtype(name, values, {"param", static_cast<int64_t>(t)}, param[t]);
  checker.sized(name, values, selected, "one for each entry that is written");
  return checker.read(name, values, selected, itemsize);
}

Replacement checked_replacement(Checker& checker, const ReplacementNames& names, const ReplacementArguments& given,
                                const TensorList& param, size_t t, const WriteTensor& tensor) {
  Replacement made{};
  if (given.value.empty()) return made;
  const auto i = static_cast<int64_t>(t);
  made.index = checked_index(checker, {names.index, i}, given.index[t], tensor.size, made.selected);
  made.value = checked_values(checker, {names.value, i}, given.value[t], param, t, made.selected, tensor.itemsize);
  if (!given.expected.empty())
    made.expected =
        checked_values(checker, {names.expected, i}, given.expected[t], param, t, made.selected, tensor.itemsize);
  return made;
}

}  // namespace

std::vector<WriteTensor> check_write_values(const TensorList& param, const ReplacementArguments& first,
                                            const ReplacementArguments& then) {
  Checker checker("write_values_", param.at(0));
  const size_t count = param.size();
  checker.length(kFirst.index, first.index.size(), "param", count);
  checker.length(kFirst.value, first.value.size(), "param", count);
  if (!first.expected.empty()) checker.length(kFirst.expected, first.expected.size(), "param", count);
  if (!then.value.empty() || !then.index.empty() || !then.expected.empty()) {
    checker.length(kThen.index, then.index.size(), "param", count);
    checker.length(kThen.value, then.value.size(), "param", count);
    checker.length(kThen.expected, then.expected.size(), "expected", first.expected.size());
  }
  std::vector<WriteTensor> checked(count);
  for (size_t t = 0; t < count; ++t) {
    const Name name{"param", static_cast<int64_t>(t)};
    WriteTensor& tensor = checked[t];
    checker.placed(name, param[t]);
    tensor.itemsize = param[t].element_size();
    checker.require(tensor.itemsize <= 8 && tensor.itemsize != 0, name, " has entries of ", tensor.itemsize,
                    " bytes, expected 1, 2, 4 or 8");
    tensor.size = checker.addressable(name, param[t]);
    tensor.param = checker.written(name, param[t], tensor.size, tensor.itemsize);
    tensor.first = checked_replacement(checker, kFirst, first, param, t, tensor);
    tensor.then = checked_replacement(checker, kThen, then, param, t, tensor);
  }
  checker.no_overlap();
  return checked;
}

void fail_mismatch(const Mismatch& mismatch) {
  fail("write_values_: param[", mismatch.tensor, "] has other bits at position ", mismatch.position, " than ",
       mismatch.then ? kThen.expected : kFirst.expected, "[", mismatch.tensor, "]; nothing was written");
}

}  // namespace mist
