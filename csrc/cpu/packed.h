// A packed vector on the CPU.
#pragma once

#include <type_traits>

#include "../tensors.h"
#include "real.h"

namespace mist::cpu {

// Calls body with a pointer to the gradient of a tensor's first kept entry from `position` on, where a piece begins.
template <class Pointer, class Body>
void with_packed(const PackedVector<Pointer>& packed, const Listed& tensor, int64_t position, const Body& body) {
  const int64_t place = packed.places[tensor.piece_of(position)];
  const auto typed = [&](auto* type) {
    using Wire = std::remove_pointer_t<decltype(type)>;
    using Value = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const Wire, Wire>;
    body(static_cast<Value*>(packed.values) + place);
  };
  packed.dtype == Dtype::bfloat16 ? typed(static_cast<c10::BFloat16*>(nullptr)) : typed(static_cast<float*>(nullptr));
}

}  // namespace mist::cpu
