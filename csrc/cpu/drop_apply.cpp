// drop_apply_*_: draws which selected entries keep their gradient, and updates those. The others are neither read nor
// written, so the work is the draws plus one cache line of parameter, gradient and state for each kept entry.
#include <bit>

#include "keep.h"
#include "kernels.h"
#include "pieces.h"
#include "real.h"

namespace mist::cpu {
namespace {

constexpr int64_t kPiece = 8192;  // entries
constexpr int kAhead = 32;        // kept entries whose memory is under way while an earlier one is updated

template <class Real, class Rule>
void update_kept(const typename Rule::Tensor& tensor, const Keeper& keeper, const Rule& rule, const float* table,
                 float grad_scale, int64_t begin, int64_t end) {
  auto* const param = static_cast<Real*>(tensor.param);
  const auto* const grad = static_cast<const Real*>(tensor.grad);
  int32_t kept[kPiece];   // places in the selection
  int32_t place[kPiece];  // places in the tensor
  int found = 0;
  int done = 0;
  const auto update_until = [&](int stop) {
    for (; done < stop; ++done) {
      const int32_t j = kept[done];
      const int32_t at = place[done];
      float gradient = static_cast<float>(grad[at]) / grad_scale;
      if (tensor.code) gradient *= table[tensor.code[j]];
      float value = tensor.master ? tensor.master[j] : static_cast<float>(param[at]);
      rule(tensor, j, gradient, value);
      if (tensor.master) tensor.master[j] = value;
      param[at] = static_cast<Real>(value);
    }
  };
  // Drawing computes and updating waits for memory: done in turns, each hides the other.
  for (int64_t at = begin; at < end; at += kWord) {
    for (uint64_t bits = keeper.kept(at, begin, end); bits != 0; bits &= bits - 1) {
      const auto j = static_cast<int32_t>(at + std::countr_zero(bits));
      const int32_t where = tensor.index ? tensor.index[j] : j;
      __builtin_prefetch(grad + where, 0);
      __builtin_prefetch(param + where, 1);
      kept[found] = j;
      place[found++] = where;
    }
    update_until(found - kAhead);
  }
  update_until(found);
}

}  // namespace

template <class Rule>
void drop_apply(const std::vector<typename Rule::Tensor>& tensors, const Draw& draw, const DeviceScalars& scalars,
                const typename Rule::Options& options) {
  if (scalars.found_inf && *scalars.found_inf != 0) return;
  const Rule rule{options, *scalars.lr};
  const float grad_scale = scalars.grad_scale ? *scalars.grad_scale : 1.0f;
  const auto step = static_cast<uint64_t>(*scalars.step);
  for_each_piece(
      tensors, kPiece, [](const auto& tensor) { return tensor.selected; },
      [&](size_t t, int64_t begin, int64_t end) {
        const Keeper keeper({draw.seed, step, tensors[t].ordinal, draw.threshold});
        with_dtype(tensors[t].dtype, [&](auto* type) {
          using Real = std::remove_pointer_t<decltype(type)>;
          update_kept<Real>(tensors[t], keeper, rule, scalars.table, grad_scale, begin, end);
        });
      });
}

template void drop_apply<Sgd>(const std::vector<SgdTensor>&, const Draw&, const DeviceScalars&, const Sgd::Options&);
template void drop_apply<AdamW>(const std::vector<AdamWTensor>&, const Draw&, const DeviceScalars&,
                                const AdamW::Options&);

}  // namespace mist::cpu
