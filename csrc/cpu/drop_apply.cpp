// drop_apply_*_: draws which selected entries keep their gradient, and updates those. The others are neither read nor
// written, so the work is the draws plus one cache line of parameter, gradient and state for each kept entry.
#include "keep.h"
#include "kept.h"
#include "kernels.h"
#include "packed.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

// Where a kept entry's gradient is read from: its own tensor, or a packed vector, in which kept entries follow each
// other.
template <class Real>
struct DenseGradient {
  const Real* grad;

  void prefetch(int32_t place) const { __builtin_prefetch(grad + place, 0); }
  float operator()(int, int32_t place) const { return static_cast<float>(grad[place]); }
};

template <class Wire>
struct PackedGradient {
  Wire* first;

  void prefetch(int32_t) const {}
  float operator()(int number, int32_t) const { return static_cast<float>(first[number]); }
};

template <class Real, class Rule, class Gradient>
void update_kept(const typename Rule::Tensor& tensor, const Keeper& keeper, const Rule& rule, const Gradient& grad,
                 const float* table, float grad_scale, int64_t begin, int64_t end) {
  auto* const param = static_cast<Real*>(tensor.param);
  const auto prefetch = [&](int32_t place) {
    grad.prefetch(place);
    __builtin_prefetch(param + place, 1);
  };
  for_each_kept(tensor, tensor.index, keeper, begin, end, prefetch, [&](int number, int32_t j, int32_t place) {
    float gradient = grad(number, place) / grad_scale;
    if (tensor.code) gradient *= table[tensor.code[j]];
    float value = tensor.master ? tensor.master[j] : static_cast<float>(param[place]);
    rule(tensor, j, gradient, value);
    if (tensor.master) tensor.master[j] = value;
    param[place] = static_cast<Real>(value);
  });
}

}  // namespace

template <class Rule>
void drop_apply(const std::vector<typename Rule::Tensor>& tensors, const Draw& draw, const DeviceScalars& scalars,
                const typename Rule::Options& options, const Packed& packed) {
  if (scalars.found_inf && *scalars.found_inf != 0) return;
  const Rule rule{options, *scalars.lr};
  const float grad_scale = scalars.grad_scale ? *scalars.grad_scale : 1.0f;
  const auto step = static_cast<uint64_t>(*scalars.step);
  for_each_piece(tensors, kKeptPiece, positions, [&](size_t t, int64_t begin, int64_t end) {
    const auto& tensor = tensors[t];
    const Keeper keeper({draw.seed, step, tensor.ordinal, draw.threshold});
    with_dtype(tensor.dtype, [&](auto* type) {
      using Real = std::remove_pointer_t<decltype(type)>;
      const auto update = [&](const auto& grad) {
        update_kept<Real>(tensor, keeper, rule, grad, scalars.table, grad_scale, begin, end);
      };
      if (!packed.places) return update(DenseGradient<Real>{static_cast<const Real*>(tensor.grad)});
      with_packed(packed, tensor, begin, [&](auto* first) { update(PackedGradient{first}); });
    });
  });
}

template void drop_apply<Sgd>(const std::vector<SgdTensor>&, const Draw&, const DeviceScalars&, const Sgd::Options&,
                              const Packed&);
template void drop_apply<AdamW>(const std::vector<AdamWTensor>&, const Draw&, const DeviceScalars&,
                                const AdamW::Options&, const Packed&);

}  // namespace mist::cpu
