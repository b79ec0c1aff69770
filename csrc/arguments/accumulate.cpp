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
    const int64_t size = score[t].numel();
    auto* const total = checker.written<float>(score_name, score[t], size);
    const void* const gradient = checker.read(grad_name, grad[t], size, itemsize(dtype));
    const uint8_t* bits = nullptr;
    if (frozen[t]) {
      checker.placed(frozen_name, *frozen[t]);
      checker.typed(frozen_name, *frozen[t], ScalarType::Byte);
      const int64_t bytes = (size + 7) / 8;
      checker.sized(frozen_name, *frozen[t], bytes, "one bit for each entry of the score");
      bits = checker.read<uint8_t>(frozen_name, *frozen[t], bytes);
    }
    checked.push_back({total, gradient, bits, size, dtype});
  }
  checker.no_overlap();
  return checked;
}

}  // namespace mist
