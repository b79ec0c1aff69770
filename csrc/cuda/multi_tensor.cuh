// Spreads a list of tensors over as few launches as the kernel arguments have room for; knows no maths.
//
// A launch takes a batch of tensors by value, so nothing is copied to the device beforehand and a captured launch
// replays as it is. Each block works on one chunk of one tensor. The table from block to tensor holds one running count
// of chunks a tensor, which every block searches: a few reads of constant memory, the same for all its threads.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "../arguments.h"
#include "../philox.h"

namespace mist::cuda {

constexpr size_t kArgumentBytes = 32764;  // sm_70 and newer, since CUDA 12.1

template <class Body>
struct Batch {
  using Item = typename Body::Item;
  static constexpr size_t kRoom = kArgumentBytes - sizeof(Body) - 2 * alignof(std::max_align_t);
  static constexpr int kCapacity = static_cast<int>(kRoom / (sizeof(Item) + sizeof(uint32_t)));

  Item item[kCapacity];
  uint32_t end[kCapacity];  // chunks of this item and all before it
  int32_t count = 0;

  void add(const Item& added) {
    const int64_t chunks = (Body::entries(added) + Body::kChunk - 1) / Body::kChunk;
    if (chunks == 0) return;
    item[count] = added;
    end[count] = begin(count) + static_cast<uint32_t>(chunks);
    ++count;
  }

  MIST_HOST_DEVICE uint32_t begin(int number) const { return number == 0 ? 0 : end[number - 1]; }

  // The item that a chunk belongs to: the first that ends behind it.
  MIST_HOST_DEVICE int find(uint32_t chunk) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (end[middle] > chunk) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, Body::kBlocks)
    for_each_chunk_kernel(const __grid_constant__ Batch<Body> batch, const __grid_constant__ Body body) {
  const int number = batch.find(blockIdx.x);
  const typename Body::Item item = batch.item[number];
  const int64_t begin = static_cast<int64_t>(blockIdx.x - batch.begin(number)) * Body::kChunk;
  const int64_t rest = Body::entries(item) - begin;
  body(item, begin, begin + (rest < Body::kChunk ? rest : Body::kChunk));
}

// Makes a tensor's device the current one, and knows the stream that torch works on there.
class Device {
 public:
  explicit Device(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// Calls body(item, begin, end) with kThreads threads for every kChunk of an item's entries. A body has
//   Item                          what describes one tensor
//   kThreads, kChunk              threads and entries of a block
//   kBlocks                       blocks that a multiprocessor should hold at once (bounds the registers)
//   entries(item)                 how many entries there are, on host and device
//   operator()(item, begin, end)  what a block does, on the device
template <class Body>
void for_each_chunk(const Device& device, const std::vector<typename Body::Item>& items, const Body& body) {
  static_assert(sizeof(Batch<Body>) + sizeof(Body) <= kArgumentBytes);
  for (size_t next = 0; next < items.size();) {
    Batch<Body> batch;
    while (next < items.size() && batch.count < Batch<Body>::kCapacity) batch.add(items[next++]);
    if (batch.count == 0) return;
    void* arguments[] = {&batch, const_cast<Body*>(&body)};
    STD_CUDA_CHECK(cudaLaunchKernel(for_each_chunk_kernel<Body>, dim3(batch.end[batch.count - 1]), dim3(Body::kThreads),
                                    arguments, 0, device.stream()));
  }
}

// The same for bodies that are made for one dtype: one launch for each dtype in the list.
template <template <class> class Body, class Item, class... Members>
void for_each_chunk_by_dtype(const Device& device, const std::vector<Item>& items, const Members&... members) {
  const auto launch = [&](Dtype dtype, const auto& body) {
    std::vector<Item> chosen;
    std::copy_if(items.begin(), items.end(), std::back_inserter(chosen),
                 [&](const Item& item) { return item.dtype == dtype; });
    for_each_chunk(device, chosen, body);
  };
  launch(Dtype::float32, Body<float>{members...});
  launch(Dtype::bfloat16, Body<c10::BFloat16>{members...});
  launch(Dtype::float16, Body<c10::Half>{members...});
}

}  // namespace mist::cuda
