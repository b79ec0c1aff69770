// Checks of one call: every tensor lies on the first one's device and has memory, and no memory that is written
// overlaps another's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "../tensors.h"
#include "messages.h"

namespace mist {

class Checker : public Requirements {
 public:
  Checker(const char* op, const Tensor& first) : Requirements{op}, first_(first), cpu_(first.is_cpu()) {
    device_ = cpu_ ? -1 : first.get_device_index();
  }

  // Whether values can be looked at: on a GPU that would wait for the device.
  bool on_cpu() const { return cpu_; }

  void length(const char* list, size_t got, const char* expected_list, size_t expected) const {
    require(got == expected, list, " has ", got, " tensors, but ", expected_list, " has ", expected);
  }

  void placed(Name name, const Tensor& tensor) const {
    const bool same = tensor.is_cpu() == cpu_ && (cpu_ || tensor.get_device_index() == device_);
    if (!same)
      fail(op, ": ", name, " is on ", device_name(tensor), ", expected ", device_name(first_), " like the rest");
    require(tensor.is_contiguous(), name, " is not contiguous; pass a contiguous tensor");
  }

  void typed(Name name, const Tensor& tensor, ScalarType type) const {
    if (dtype_number(tensor) != dtype_number(type))
      fail(op, ": ", name, " has dtype ", dtype_name(tensor), ", expected ", dtype_name(type));
  }

  void same_dtype(Name name, const Tensor& tensor, Name like, const Tensor& other) const {
    if (dtype_number(tensor) != dtype_number(other))
      fail(op, ": ", name, " has dtype ", dtype_name(tensor), ", but ", like, " has ", dtype_name(other));
  }

  void same_shape(Name name, const Tensor& tensor, Name like, const Tensor& other) const {
    const auto shape = tensor.sizes(), expected = other.sizes();
    if (!std::equal(shape.begin(), shape.end(), expected.begin(), expected.end()))
      fail(op, ": ", name, " has shape ", shape_name(tensor), ", but ", like, " has ", shape_name(other));
  }

  void sized(Name name, const Tensor& tensor, int64_t size, const char* why) const {
    const int64_t numel = tensor.numel();
    require(numel == size, name, " has ", numel, " entries, expected ", size, ", ", why);
  }

  Dtype floating(Name name, const Tensor& tensor) const {
    const int32_t number = dtype_number(tensor);
    if (number == aoti_torch_dtype_float32()) return Dtype::float32;
    if (number == aoti_torch_dtype_bfloat16()) return Dtype::bfloat16;
    if (number == aoti_torch_dtype_float16()) return Dtype::float16;
    fail(op, ": ", name, " has dtype ", dtype_name(tensor), ", expected float32, bfloat16 or float16");
  }

  // Its number of entries: positions are int32, so a tensor holds at most 2^31 - 1.
  int64_t addressable(Name name, const Tensor& tensor) const {
    const int64_t numel = tensor.numel();
    require(numel <= std::numeric_limits<int32_t>::max(), name, " has ", numel,
            " entries; an index is int32, so at most 2147483647 are supported. Split the tensor");
    return numel;
  }

  // Room for so many tensors.
  void reserve(size_t tensors) { spans_.reserve(spans_.size() + tensors); }

  // The memory of a tensor of `numel` entries, each of `itemsize` bytes.
  const void* read(Name name, const Tensor& tensor, int64_t numel, size_t itemsize) {
    const void* const memory = tensor.const_data_ptr();
    uses(name, memory, numel, itemsize, false);
    return memory;
  }

  void* written(Name name, const Tensor& tensor, int64_t numel, size_t itemsize) {
    void* const memory = tensor.mutable_data_ptr();
    uses(name, memory, numel, itemsize, true);
    return memory;
  }

  template <class Value>
  const Value* read(Name name, const Tensor& tensor, int64_t numel) {
    return static_cast<const Value*>(read(name, tensor, numel, sizeof(Value)));
  }

  template <class Value>
  Value* written(Name name, const Tensor& tensor, int64_t numel) {
    return static_cast<Value*>(written(name, tensor, numel, sizeof(Value)));
  }

  void no_overlap() const {
    std::vector<std::pair<uintptr_t, const Span*>> order;  // small to move: this takes a good part of all checks
    order.reserve(spans_.size());
    for (const Span& span : spans_) order.emplace_back(span.begin, &span);
    std::sort(order.begin(), order.end());
    const Span* furthest = nullptr;          // of all spans so far
    const Span* furthest_written = nullptr;  // of those that are written
    for (const auto& [begin, span] : order) {
      const Span* other = span->written ? furthest : furthest_written;
      if (other && begin < other->end)
        fail(op, ": ", other->name, " and ", span->name,
             " share memory, and one of them is written. Pass separate tensors");
      if (!furthest || span->end > furthest->end) furthest = span;
      if (span->written && (!furthest_written || span->end > furthest_written->end)) furthest_written = span;
    }
  }

 private:
  void uses(Name name, const void* memory, int64_t numel, size_t itemsize, bool written) {
    if (numel == 0) return;
    require(memory != nullptr, name, " has ", numel, " entries but no memory: its storage was freed");
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    spans_.push_back({begin, begin + static_cast<uintptr_t>(numel) * itemsize, written, name});
  }

  struct Span {
    uintptr_t begin, end;
    bool written;
    Name name;
  };

  const Tensor& first_;
  bool cpu_;
  int32_t device_;
  std::vector<Span> spans_;
};

}  // namespace mist
