// What all tensors of a call share: values on their device, and the draw.
#include <algorithm>

#include "../arguments.h"
#include "checker.h"

namespace mist {

DeviceScalars check_scalars(const char* op, const Tensor& first, const OptionalTensorList& scale_code,
                            const std::optional<Tensor>& table, const Tensor& step, const std::optional<Tensor>& lr,
                            const std::optional<Tensor>& found_inf, const std::optional<Tensor>& grad_scale) {
  const Checker checker(op, first);
  const auto scalar = [&](const char* list, const std::optional<Tensor>& tensor) -> const float* {
    if (!tensor) return nullptr;
    checker.placed({list}, *tensor);
    checker.typed({list}, *tensor, ScalarType::Float);
    checker.sized({list}, *tensor, 1, "a single value");
    return static_cast<const float*>(tensor->const_data_ptr());
  };
  DeviceScalars scalars{};
  checker.placed({"step"}, step);
  checker.typed({"step"}, step, ScalarType::Long);
  checker.sized({"step"}, step, 1, "a single value");
  scalars.step = static_cast<const int64_t*>(step.const_data_ptr());
  scalars.lr = scalar("lr", lr);
  scalars.found_inf = scalar("found_inf", found_inf);
  scalars.grad_scale = scalar("grad_scale", grad_scale);
  const bool scaled =
      std::any_of(scale_code.begin(), scale_code.end(), [](const auto& code) { return code.has_value(); });
  if (scaled) {
    checker.require(table.has_value(), "scale_code is given, but table, which turns a code into a factor, is None");
    checker.placed({"table"}, *table);
    checker.typed({"table"}, *table, ScalarType::Float);
    checker.sized({"table"}, *table, 256, "one factor for each uint8 code");
    scalars.table = static_cast<const float*>(table->const_data_ptr());
  }
  return scalars;
}

Draw check_draw(const char* op, int64_t threshold, int64_t seed) {
  if (threshold < 0 || threshold > 65536)
    fail(op, ": threshold is ", threshold, ", expected 0 (keep nothing) to 65536 (keep everything)");
  return {static_cast<uint64_t>(seed), static_cast<uint32_t>(threshold)};
}

}  // namespace mist
