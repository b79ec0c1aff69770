// select: the positions of the k largest scores of each tensor, ties by lowest position, ascending.
//
// Three launches for the whole list. A sample gives each tensor a bound a little below its k-th largest score. One pass
// over the scores lists what reaches it (the survivors, slightly more than k). Then one block a tensor searches the
// exact k-th value among the survivors and writes the index. Where the sample misled, or a list would be no shorter
// than half the tensor, that block goes over the tensor itself. The result does not depend on the sample.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <limits>

#include "kth_largest.cuh"
#include "multi_tensor.cuh"
#include "radix.h"
#include "warp.cuh"

namespace mist::cuda {
namespace {

constexpr int kPiece = 1 << 13;   // entries that one block lists
constexpr int kSample = 1 << 13;  // scores that the bound is taken from
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kNoNan = std::numeric_limits<int32_t>::max();

struct State {
  float bound;
  int32_t survivors;
  int32_t nan;  // position of the first NaN
};

// Pieces come in any order into a tensor's list; within a piece the order is ascending.
struct Piece {
  int32_t begin;
  int32_t count;
};

struct Selection {
  const float* score;
  int32_t size;
  int32_t k;
  int32_t sample;    // scores to sample
  int32_t rank;      // of the bound in the sample
  int32_t capacity;  // of the list; 0: there is none
  int32_t* index;
  State* state;
  Piece* piece;
  int32_t* position;
  float* survivor;  // the scores at `position`
};

__host__ __device__ int32_t pieces(int32_t size) { return static_cast<int32_t>((int64_t{size} + kPiece - 1) / kPiece); }

struct Sample {
  using Item = Selection;
  static constexpr int kThreads = kSearchThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kChunk = 1;

  MIST_HOST_DEVICE static Range positions(const Selection&) { return {0, 1}; }  // a block a tensor

  __device__ void operator()(const Selection& tensor, int64_t, int64_t) const {
    float bound = kInfinity;
    if (tensor.capacity > 0) {
      // One of every `stride` scores, at a place within its stride that never falls into step with a matrix's rows.
      const auto stride = static_cast<uint32_t>(tensor.size / tensor.sample);
      const auto sampled = [&](int64_t s) {
        const uint32_t fraction = static_cast<uint32_t>(s) * 0x9E3779B9u;  // of the golden ratio
        return tensor.score[s * stride + (uint64_t{fraction} * stride >> 32)];
      };
      bound = radix::score(kth_largest(tensor.sample, tensor.rank, sampled).found);
    }
    if (threadIdx.x == 0) *tensor.state = {bound, 0, kNoNan};
  }
};

struct List {
  using Item = Selection;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 4;
  static constexpr int kChunk = kPiece;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kWarpEntries = kChunk / kWarps;
  static constexpr int kAtOnce = 16;  // scores that a thread has in flight

  MIST_HOST_DEVICE static Range positions(const Selection& tensor) { return {0, tensor.size}; }

  // Each warp gathers the survivors of its part of the piece; then the whole piece gets its place in the list.
  __device__ void operator()(const Selection& tensor, int64_t begin, int64_t end) const {
    __shared__ uint16_t gathered[kWarps][kWarpEntries];
    __shared__ int32_t place;
    const int part = warp() * kWarpEntries;
    const float* const score = tensor.score + begin + part;
    const auto count = static_cast<int>(end - begin) - part;
    const float bound = tensor.state->bound;
    int survivors = 0;
    for (int step = lane(); step < kWarpEntries; step += kAtOnce * kWarp) {
      float value[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) value[u] = step + u * kWarp < count ? score[step + u * kWarp] : -kInfinity;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int i = step + u * kWarp;
        const bool reaches = i < count && !(value[u] < bound);  // a NaN reaches every bound, so it is sure to be found
        const uint32_t ballot = __ballot_sync(kAllLanes, reaches);
        if (reaches) gathered[warp()][survivors + below(ballot)] = static_cast<uint16_t>(i);
        survivors += __popc(ballot);
      }
    }
    int total;
    const int before = block_exclusive_sum<kThreads>(lane() == 0 ? survivors : 0, total);
    if (threadIdx.x == 0) {
      place = atomicAdd(&tensor.state->survivors, total);
      tensor.piece[begin / kPiece] = {place, total};
    }
    __syncthreads();
    const bool fits = total <= tensor.capacity - place;
    const int32_t out = place + __shfl_sync(kAllLanes, before, 0);
    for (int s = lane(); s < survivors; s += kWarp) {
      const int i = gathered[warp()][s];
      const auto position = static_cast<int32_t>(begin) + part + i;
      if (isnan(score[i])) atomicMin(&tensor.state->nan, position);
      if (!fits) continue;
      tensor.position[out + s] = position;
      tensor.survivor[out + s] = score[i];
    }
  }
};

struct Write {
  using Item = Selection;
  static constexpr int kThreads = kSearchThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kChunk = 1;
  static constexpr int kAtOnce = 8;  // survivors that a thread has in flight

  MIST_HOST_DEVICE static Range positions(const Selection&) { return {0, 1}; }

  __device__ void operator()(const Selection& tensor, int64_t, int64_t) const {
    if (tensor.k == 0) return;
    const int32_t survivors = tensor.state->survivors;
    const bool listed = survivors >= tensor.k && survivors <= tensor.capacity;
    const float* const score = listed ? tensor.survivor : tensor.score;
    const auto kth = kth_largest(listed ? survivors : tensor.size, tensor.k, [&](int64_t i) { return score[i]; });

    // Each warp takes its share of neighbouring pieces: first it counts, then it knows where to write.
    constexpr int kWarps = kThreads / kWarp;
    const int64_t count = pieces(tensor.size);
    const auto first = static_cast<int32_t>(count * warp() / kWarps);
    const auto last = static_cast<int32_t>(count * (warp() + 1) / kWarps);
    const auto piece = [&](int32_t p) {
      return listed ? tensor.piece[p] : Piece{p * kPiece, min(kPiece, tensor.size - p * kPiece)};
    };
    int larger = 0, equal = 0;
    for (int32_t p = first; p < last; ++p) {
      const Piece part = piece(p);
#pragma unroll 4
      for (int32_t i = lane(); i < part.count; i += kWarp) {
        const uint32_t key = radix::key(score[part.begin + i]);
        larger += key > kth.found;
        equal += key == kth.found;
      }
    }
    int total;
    int ties = __shfl_sync(kAllLanes, block_exclusive_sum<kThreads>(equal, total), 0);
    int out = __shfl_sync(kAllLanes, block_exclusive_sum<kThreads>(larger, total), 0) + min(ties, kth.rank);
    for (int32_t p = first; p < last; ++p) {
      const Piece part = piece(p);
      for (int32_t step = 0; step < part.count; step += kAtOnce * kWarp) {
        const int32_t rest = part.count - step - lane();
        const int32_t from = part.begin + step + lane();
        uint32_t key[kAtOnce];
        int32_t position[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) {
          key[u] = u * kWarp < rest ? radix::key(score[from + u * kWarp]) : 0;  // smaller than any number's
          if (u * kWarp < rest) position[u] = listed ? tensor.position[from + u * kWarp] : from + u * kWarp;
        }
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) {
          const uint32_t tied = __ballot_sync(kAllLanes, key[u] == kth.found);
          const bool taken = key[u] > kth.found || (key[u] == kth.found && ties + below(tied) < kth.rank);
          const uint32_t written = __ballot_sync(kAllLanes, taken);
          if (taken) tensor.index[out + below(written)] = position[u];
          ties += __popc(tied);
          out += __popc(written);
        }
      }
    }
  }
};

// Sizes the sample and the list so that the bound lies below the k-th score, and what reaches it fits the list, by four
// standard deviations each.
void plan(Selection& tensor) {
  const auto ample = [](double count) { return std::ceil(count + 4 * (std::sqrt(count) + 2)); };
  if (tensor.k == 0) return;
  tensor.sample = std::min(tensor.size, kSample);
  const double share = static_cast<double>(tensor.sample) / tensor.size;
  const double rank = ample(share * tensor.k);
  const double capacity = ample(rank) / share;
  if (capacity > tensor.size / 2) return;
  tensor.rank = static_cast<int32_t>(rank);
  tensor.capacity = static_cast<int32_t>(capacity);
}

TensorList select_cuda(TensorList score, std::vector<int64_t> k) {
  const auto tensors = check_select(score, k);
  const Device device(score[0]);
  const auto new_int32 = [&](int64_t count) {
    const int64_t size[] = {count};
    return torch::stable::new_empty(score[0], {size, 1}, torch::headeronly::ScalarType::Int);
  };
  TensorList index;
  std::vector<Selection> selections;
  int64_t words = 0;  // of 32 bits, for states, pieces and lists
  for (const SelectTensor& tensor : tensors) {
    Selection selection{};
    selection.score = tensor.score;
    selection.size = static_cast<int32_t>(tensor.size);
    selection.k = static_cast<int32_t>(tensor.k);
    plan(selection);
    index.push_back(new_int32(tensor.k));
    selection.index = static_cast<int32_t*>(index.back().mutable_data_ptr());
    selections.push_back(selection);
    words +=
        (sizeof(State) + pieces(selection.size) * sizeof(Piece)) / sizeof(int32_t) + 2 * int64_t{selection.capacity};
  }
  const Tensor workspace = new_int32(words);
  auto* free = static_cast<int32_t*>(workspace.mutable_data_ptr());
  const auto take = [&]<class T>(T*& part, int64_t count) {
    part = reinterpret_cast<T*>(free);
    free += count * static_cast<int64_t>(sizeof(T) / sizeof(int32_t));
  };
  for (Selection& selection : selections) take(selection.state, 1);
  for (Selection& selection : selections) {
    take(selection.piece, pieces(selection.size));
    take(selection.position, selection.capacity);
    take(selection.survivor, selection.capacity);
  }
  for_each_chunk(device, selections, Sample{});
  for_each_chunk(device, selections, List{});
  for_each_chunk(device, selections, Write{});

  // The one wait for the device: a NaN must be an error.
  std::vector<State> states(selections.size());
  STD_CUDA_CHECK(cudaMemcpyAsync(states.data(), selections[0].state, states.size() * sizeof(State),
                                 cudaMemcpyDeviceToHost, device.stream()));
  STD_CUDA_CHECK(cudaStreamSynchronize(device.stream()));
  for (size_t t = 0; t < states.size(); ++t)
    if (states[t].nan != kNoNan) fail_nan("select", t, states[t].nan);
  return index;
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) { m.impl("select", TORCH_BOX(&mist::cuda::select_cuda)); }
