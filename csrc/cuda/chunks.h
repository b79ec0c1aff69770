// How a list of tensors is cut into chunks, and which chunk a block of a launch works on. Host and device, no torch, so
// that it is tested where there is no GPU.
//
// A launch takes a batch of tensors by value, so nothing is copied to the device beforehand and a captured launch
// replays as it is. Each block works on one chunk of one tensor. The table from block to tensor holds one running count
// of chunks a tensor, which every block searches: a few reads of constant memory, the same for all its threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../grid.h"

namespace mist::cuda {

constexpr size_t kArgumentBytes = 32764;     // sm_70 and newer, since CUDA 12.1
constexpr int64_t kMostBlocks = 2147483647;  // of a launch in one dimension

// What one launch is given, beside the body. A body has
//   Item                          what describes one tensor
//   kThreads, kChunk              threads and positions of a block
//   kBlocks                       blocks that a multiprocessor should hold at once (bounds the registers)
//   positions(item)               which there are, cut at multiples of kChunk, on host and device
//   operator()(item, begin, end)  what a block does, on the device
template <class Body>
struct Batch {
  using Item = typename Body::Item;
  static constexpr size_t kRoom = kArgumentBytes - sizeof(Body) - 2 * alignof(std::max_align_t);
  static constexpr int kCapacity = static_cast<int>(kRoom / (sizeof(Item) + sizeof(uint32_t)));

  Item item[kCapacity];
  uint32_t end[kCapacity];  // chunks of this item and all before it
  int32_t count = 0;

  // Whether there was room; an item without positions needs none.
  bool add(const Item& added) {
    const int64_t chunks = cells(Body::positions(added), Body::kChunk);
    if (chunks == 0) return true;
    if (count == kCapacity || begin(count) + chunks > kMostBlocks) return false;
    item[count] = added;
    end[count] = begin(count) + static_cast<uint32_t>(chunks);
    ++count;
    return true;
  }

  uint32_t blocks() const { return begin(count); }

  MIST_HOST_DEVICE uint32_t begin(int number) const { return number == 0 ? 0 : end[number - 1]; }

  // The item that a block's chunk belongs to: the first that ends behind it.
  MIST_HOST_DEVICE int find(uint32_t block) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (end[middle] > block) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  // Which of that item's positions the chunk has.
  MIST_HOST_DEVICE Range range(uint32_t block, int number) const {
    return cell(Body::positions(item[number]), Body::kChunk, block - begin(number));
  }
};

// Calls launch(batch) for as few batches as have room for all items, in order. No item is too large for a batch of its
// own: that would take 2^31 chunks.
template <class Body, class Launch>
void for_each_batch(const std::vector<typename Body::Item>& items, const Launch& launch) {
  static_assert(sizeof(Batch<Body>) + sizeof(Body) <= kArgumentBytes);
  for (size_t next = 0; next < items.size();) {
    Batch<Body> batch;
    while (next < items.size() && batch.add(items[next])) ++next;
    if (batch.count == 0) return;
    launch(batch);
  }
}

}  // namespace mist::cuda
