// The three floating-point types a parameter or gradient can have, behind one dispatch.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../tensors.h"

namespace mist::cpu {

// Calls body with a null pointer of the dtype's C++ type.
template <class Body>
void with_dtype(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::float32: return body(static_cast<float*>(nullptr));
    case Dtype::bfloat16: return body(static_cast<c10::BFloat16*>(nullptr));
    case Dtype::float16: return body(static_cast<c10::Half*>(nullptr));
  }
}

}  // namespace mist::cpu
