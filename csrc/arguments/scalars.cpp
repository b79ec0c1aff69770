// What all tensors of a call share: values on their device, and the draw.
#include <algorithm>

#include "../arguments.h"
#include "selected.h"

namespace mist {

void check_step(const Requirements& checker, int64_t step) {
  checker.require(step >= 0, "step is ", step, ", expected 0 or more");
}

DeviceScalars check_scalars(Checker& checker, const OptionalTensorList& scale_code, const std::optional<Tensor>& table,
                            const Tensor& step, const std::optional<Tensor>& lr, const std::optional<Tensor>& found_inf,
                            const std::optional<Tensor>& grad_scale) {
  const auto check = [&](const char* list, const Tensor& tensor, ScalarType type, int64_t size, const char* why) {
    checker.placed({list}, tensor);
    checker.typed({list}, tensor, type);
    checker.sized({list}, tensor, size, why);
  };
  const auto scalar = [&](const char* list, const std::optional<Tensor>& tensor) -> const float* {
    if (!tensor) return nullptr;
    check(list, *tensor, ScalarType::Float, 1, "a single value");
    return checker.read<float>({list}, *tensor, 1);
  };
  DeviceScalars scalars{};
  check("step", step, ScalarType::Long, 1, "a single value");
  scalars.step = checker.read<int64_t>({"step"}, step, 1);
  if (checker.on_cpu()) check_step(checker, *scalars.step);
  scalars.lr = scalar("lr", lr);
  scalars.found_inf = scalar("found_inf", found_inf);
  scalars.grad_scale = scalar("grad_scale", grad_scale);
  const bool scaled =
      std::any_of(scale_code.begin(), scale_code.end(), [](const auto& code) { return code.has_value(); });
  if (scaled) {
    checker.require(table.has_value(), "scale_code is given, but table, which turns a code into a factor, is None");
    check("table", *table, ScalarType::Float, 256, "one factor for each uint8 code");
    scalars.table = checker.read<float>({"table"}, *table, 256);
  }
  return scalars;
}

Draw check_draw(const Requirements& checker, int64_t threshold, int64_t seed) {
  checker.require(threshold >= 0 && threshold <= 65536, "threshold is ", threshold,
                  ", expected 0 (keep nothing) to 65536 (keep everything)");
  checker.require(seed >= 0, "seed is ", seed, ", expected 0 to 2^63 - 1");
  return {static_cast<uint64_t>(seed), static_cast<uint32_t>(threshold)};
}

KeepRule check_keep_mask(int64_t seed, int64_t ordinal, int64_t step, int64_t n, int64_t threshold, int64_t first) {
  const Requirements checker{"keep_mask"};
  checker.require(n >= 0 && n <= kLongestList, "n is ", n, ", expected 0 to ", kLongestList);
  Listed list{};
  list.selected = n;
  check_listed(checker, {"first"}, first, {"ordinal"}, ordinal, list);
  check_step(checker, step);
  const Draw draw = check_draw(checker, threshold, seed);
  return {draw.seed, static_cast<uint64_t>(step), list.ordinal, draw.threshold};
}

}  // namespace mist
