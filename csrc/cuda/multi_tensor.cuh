// Launches a body over all chunks of a list of tensors; knows no maths. chunks.h says how they are cut.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "../arguments.h"
#include "chunks.h"

namespace mist::cuda {

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, Body::kBlocks)
    for_each_chunk_kernel(const __grid_constant__ Batch<Body> batch, const __grid_constant__ Body body) {
  const int number = batch.find(blockIdx.x);
  const typename Body::Item item = batch.item[number];
  const Range chunk = batch.range(blockIdx.x, number);
  body(item, chunk.begin, chunk.end);
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

// Calls body(item, begin, end) with kThreads threads for every kChunk of an item's entries.
template <class Body>
void for_each_chunk(const Device& device, const std::vector<typename Body::Item>& items, const Body& body) {
  for_each_batch<Body>(items, [&](Batch<Body>& batch) {
    void* arguments[] = {&batch, const_cast<Body*>(&body)};
    STD_CUDA_CHECK(cudaLaunchKernel(for_each_chunk_kernel<Body>, dim3(batch.blocks()), dim3(Body::kThreads), arguments,
                                    0, device.stream()));
  });
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
