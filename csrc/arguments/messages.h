// What errors say: the names of arguments, dtypes, devices and shapes.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace mist {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// What one op's arguments must fulfil.
struct Requirements {
  const char* op;

  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) fail(op, ": ", parts...);
  }
};

// A name for messages that costs nothing until it is printed.
struct Name {
  const char* list;
  int64_t position = -1;

  friend std::ostream& operator<<(std::ostream& out, const Name& name) {
    out << name.list;
    return name.position < 0 ? out : out << '[' << name.position << ']';
  }
};

// torch's own number of a dtype: to turn it into a ScalarType takes many calls, and all tensors of a call are asked.
inline int32_t dtype_number(const Tensor& tensor) {
  int32_t number = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &number));
  return number;
}

inline int32_t dtype_number(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return aoti_torch_dtype_uint8();
    case ScalarType::Int: return aoti_torch_dtype_int32();
    case ScalarType::Long: return aoti_torch_dtype_int64();
    default: return aoti_torch_dtype_float32();
  }
}

inline std::string dtype_name(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    default: return "dtype number " + std::to_string(static_cast<int>(tensor.scalar_type()));
  }
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: return "float32";
  }
}

inline std::string device_name(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device:") + std::to_string(tensor.get_device_index());
}

inline std::string shape_name(const Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

}  // namespace mist
