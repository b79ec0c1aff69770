#include "../arguments.h"

namespace mist {

std::vector<SelectTensor> check_select(const TensorList& score, const std::vector<int64_t>& k) {
  Checker checker("select", score.at(0));
  checker.length("k", k.size(), "score", score.size());
  std::vector<SelectTensor> checked;
  checked.reserve(score.size());
  for (size_t t = 0; t < score.size(); ++t) {
    const Name name{"score", static_cast<int64_t>(t)};
    checker.placed(name, score[t]);
    checker.typed(name, score[t], ScalarType::Float);
    const int64_t size = checker.addressable(name, score[t]);
    const auto* const scores = checker.read<float>(name, score[t], size);
    checker.require(k[t] >= 0 && k[t] <= size, "k[", t, "] is ", k[t], ", expected 0 to ", size, ", the size of ",
                    name);
    checked.push_back({scores, size, k[t]});
  }
  return checked;
}

void fail_nan(const char* op, size_t tensor, int64_t entry) {
  fail(op, ": score[", tensor, "] is NaN at entry ", entry, "; scores must be numbers to be ranked");
}

}  // namespace mist
