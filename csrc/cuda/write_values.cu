// write_values_: replaces entries by value, where the bits that are there are the expected ones.
//
// A replacement is compared in one launch and written in another one, and the host waits in between. What was written
// before a second replacement fails is taken back.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "multi_tensor.cuh"

namespace mist::cuda {
namespace {

// One replacement of one tensor.
struct WriteItem {
  void* param;
  const int32_t* index;  // null: all entries
  const void* value;
  int64_t selected;
  int64_t size;
  uint32_t number;  // of the tensor
  uint32_t itemsize;
};

// The lowest of the faults found: an index that does not ascend before other bits, then by tensor and entry.
constexpr unsigned long long kNoFault = ~0ull;
constexpr unsigned long long kOtherBits = 1ull << 62;

__host__ __device__ inline unsigned long long fault(uint32_t tensor, int64_t entry) {
  return static_cast<unsigned long long>(tensor) << 31 | static_cast<unsigned long long>(entry);
}

template <class Bits>
struct WriteBody {
  using Item = WriteItem;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 6;
  static constexpr int kUnroll = 8;
  static constexpr int kChunk = kThreads * kUnroll;

  MIST_HOST_DEVICE static Range positions(const WriteItem& item) { return {0, item.selected}; }
};

template <class Bits>
struct Compare : WriteBody<Bits> {
  unsigned long long* found;

  // Reads no entry outside of the tensor, whatever the index holds.
  __device__ void operator()(const WriteItem& item, int64_t begin, int64_t end) const {
    for (int64_t j = begin + threadIdx.x; j < end; j += WriteBody<Bits>::kThreads) {
      const int64_t place = item.index ? item.index[j] : j;
      if (place < 0 || place >= item.size || (item.index && j > 0 && item.index[j - 1] >= place)) {
        atomicMin(found, fault(item.number, j));
      } else if (static_cast<const Bits*>(item.param)[place] != static_cast<const Bits*>(item.value)[j]) {
        atomicMin(found, kOtherBits | fault(item.number, j));
      }
    }
  }
};

template <class Bits>
struct Put : WriteBody<Bits> {
  __device__ void operator()(const WriteItem& item, int64_t begin, int64_t end) const {
    for (int64_t j = begin + threadIdx.x; j < end; j += WriteBody<Bits>::kThreads)
      static_cast<Bits*>(item.param)[item.index ? item.index[j] : j] = static_cast<const Bits*>(item.value)[j];
  }
};

template <template <class> class Body, class... Members>
void for_each_chunk_by_size(const Device& device, const std::vector<WriteItem>& items, const Members&... members) {
  const auto launch = [&](uint32_t itemsize, const auto& body) {
    std::vector<WriteItem> chosen;
    std::copy_if(items.begin(), items.end(), std::back_inserter(chosen),
                 [&](const WriteItem& item) { return item.itemsize == itemsize; });
    for_each_chunk(device, chosen, body);
  };
  launch(1, Body<uint8_t>{{}, members...});
  launch(2, Body<uint16_t>{{}, members...});
  launch(4, Body<uint32_t>{{}, members...});
  launch(8, Body<unsigned long long>{{}, members...});
}

std::vector<WriteItem> items_of(const std::vector<WriteTensor>& tensors, Replacement WriteTensor::* which,
                                const void* Replacement::* values) {
  std::vector<WriteItem> items;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const Replacement& made = tensors[t].*which;
    items.push_back({tensors[t].param, made.index, made.*values, made.selected, tensors[t].size,
                     static_cast<uint32_t>(t), static_cast<uint32_t>(tensors[t].itemsize)});
  }
  return items;
}

// The lowest fault; waits for the device.
unsigned long long compare(const Device& device, const Tensor& like, const std::vector<WriteItem>& items) {
  const int64_t size[] = {1};
  const Tensor memory = torch::stable::new_empty(like, {size, 1}, torch::headeronly::ScalarType::Long);
  auto* const found = static_cast<unsigned long long*>(memory.mutable_data_ptr());
  STD_CUDA_CHECK(cudaMemsetAsync(found, 0xFF, sizeof(kNoFault), device.stream()));
  for_each_chunk_by_size<Compare>(device, items, found);
  unsigned long long lowest = kNoFault;
  STD_CUDA_CHECK(cudaMemcpyAsync(&lowest, found, sizeof(lowest), cudaMemcpyDeviceToHost, device.stream()));
  STD_CUDA_CHECK(cudaStreamSynchronize(device.stream()));
  return lowest;
}

[[noreturn]] void fail_write(const Device& device, const std::vector<WriteItem>& items, unsigned long long lowest,
                             bool then) {
  const auto tensor = static_cast<int64_t>((lowest & (kOtherBits - 1)) >> 31);
  int64_t position = static_cast<int64_t>(lowest & ((1ull << 31) - 1));
  if (lowest < kOtherBits) fail_descending("write_values_", tensor, then ? "then_index" : "index");
  if (const int32_t* const index = items[static_cast<size_t>(tensor)].index) {
    int32_t place = 0;
    STD_CUDA_CHECK(cudaMemcpyAsync(&place, index + position, sizeof(place), cudaMemcpyDeviceToHost, device.stream()));
    STD_CUDA_CHECK(cudaStreamSynchronize(device.stream()));
    position = place;
  }
  fail_mismatch({tensor, then, position});
}

void write_values_cuda(const TensorList& param, const OptionalTensorList& index, const TensorList& value,
                       const TensorList& expected, const OptionalTensorList& then_index, const TensorList& then_value,
                       const TensorList& then_expected) {
  const auto tensors = check_write_values(param, {index, value, expected}, {then_index, then_value, then_expected});
  const Device device(param[0]);
  bool then = false;
  for (const auto which : {&WriteTensor::first, &WriteTensor::then}) {
    if (!expected.empty()) {
      const auto wanted = items_of(tensors, which, &Replacement::expected);
      if (const auto lowest = compare(device, param[0], wanted); lowest != kNoFault) {
        if (then) for_each_chunk_by_size<Put>(device, items_of(tensors, &WriteTensor::first, &Replacement::expected));
        fail_write(device, wanted, lowest, then);
      }
    }
    for_each_chunk_by_size<Put>(device, items_of(tensors, which, &Replacement::value));
    then = true;
  }
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) { m.impl("write_values_", TORCH_BOX(&mist::cuda::write_values_cuda)); }
