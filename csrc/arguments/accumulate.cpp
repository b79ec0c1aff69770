#include "../arguments.h"

namespace mist {

std::vector<AccumulateTensor> check_accumulate(const TensorList& score, const TensorList& grad,
                                               const OptionalTensorList& frozen) {
  Checker checker("accumulate_", score.at(0));
  checker.length("grad", grad.size(), "score", score.size());
  checker.length("frozen", frozen.size(), "score", score.size());
  std::vector<AccumulateTensor> checked;
  checked.reserve(score.size());
  for (size_t t = 0; t < score.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name score_name{"score", i}, grad_name{"grad", i}, frozen_name{"frozen", i};
    checker.placed(score_name, score[t]);
    checker.typed(score_name, score[t], ScalarType::Float);
    checker.placed(grad_name, grad[t]);
    const Dtype dtype = checker.floating(grad_name, grad[t]);
    checker.same_shape(grad_name, grad[t], score_name, score[t]);
    checker.uses(score_name, score[t], true);
    checker.uses(grad_name, grad[t], false);
    const uint8_t* bits = nullptr;
    const int64_t size = score[t].numel();
    if (frozen[t]) {
      checker.placed(frozen_name, *frozen[t]);
      checker.typed(frozen_name, *frozen[t], ScalarType::Byte);
      checker.sized(frozen_name, *frozen[t], (size + 7) / 8, "one bit for each entry of the score");
      checker.uses(frozen_name, *frozen[t], false);
      bits = static_cast<const uint8_t*>(frozen[t]->const_data_ptr());
    }
    checked.push_back({static_cast<float*>(score[t].mutable_data_ptr()), grad[t].const_data_ptr(), bits, size, dtype});
  }
  checker.no_overlap();
  return checked;
}

}  // namespace mist
