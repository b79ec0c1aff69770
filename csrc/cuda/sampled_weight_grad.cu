// sampled_weight_grad_: the kept entries of linear layers' weight gradients. One launch lists where the kept entries
// lie in their weights; then, for some tiles of tokens at a time, one leaves each tile's sums and one adds them up.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "kept.cuh"
#include "multi_tensor.cuh"
#include "sampled_plan.h"

namespace mist::cuda {
namespace {

using PositionList = PackedVector<int32_t*>;

// Writes each kept entry's position in its weight where its gradient lies in the packed vector.
struct ListKept {
  using Item = LinearTensor;
  static constexpr int kThreads = kKeptThreads;
  static constexpr int kBlocks = 6;
  static constexpr int kChunk = static_cast<int>(kPlacePiece);

  Draw draw;
  const int64_t* step;
  PositionList list;

  MIST_HOST_DEVICE static Range positions(const Item& tensor) { return tensor.positions(); }

  __device__ void operator()(const Item& tensor, int64_t begin, int64_t end) const {
    __shared__ uint8_t gathered[kKeptWarps][kWarpPositions];
    const KeepRule keep{draw.seed, static_cast<uint64_t>(*step), tensor.ordinal, draw.threshold};
    const Kept kept = gather_kept(keep, begin, end, gathered);
    const int64_t place = packed_place(list, tensor.piece_of(begin), kept.count);
#pragma unroll 1
    for (int k = lane(); k < kept.count; k += kWarp) {
      const uint32_t j = kept.position(k) - tensor.first;
      list.values[place + k] = tensor.index ? tensor.index[j] : static_cast<int32_t>(j);
    }
  }
};

// A block's tile: each thread adds up the products of a few entries, in lanes that are registers of its own. Inputs lie
// in shared memory, some tokens at a time; the columns that a warp reads there are scattered. Its rows are neighbours.
template <class Real>
struct SumTile {
  using Item = TiledLinear;
  static constexpr int kThreads = kSampledThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kChunk = 1;

  const int32_t* list;
  const int64_t* places;
  float* sums;  // [tiles, length]
  int64_t length;
  uint32_t pieces_of_group;

  MIST_HOST_DEVICE static Range positions(const Item& layer) { return {0, layer.blocks()}; }

  __device__ void operator()(const Item& layer, int64_t block, int64_t) const {
    const uint32_t first = layer.group_of(block) * pieces_of_group;
    const int64_t* const place = places + layer.piece;
    const int64_t end = place[min(first + pieces_of_group, layer.pieces)];
    const uint32_t tile = layer.tile_of(block);
    const int64_t token = (int64_t{layer.first_tile} + tile) * kTokenTile;
    float* const to = sums + tile * length;
    const int at_once = staged_tokens(layer.inputs, sizeof(Real));
    for (int64_t begin = place[first]; begin < end; begin += kSampledEntries) {
      if (at_once > 0) {
        add<true>(layer, token, at_once, begin, end, to);
      } else {
        add<false>(layer, token, at_once, begin, end, to);
      }
    }
  }

 private:
  template <bool kStaged>
  __device__ void add(const Item& layer, int64_t token, int at_once, int64_t begin, int64_t end, float* to) const {
    __shared__ alignas(16) unsigned char staged[kStagedBytes];
    const auto width = static_cast<int32_t>(layer.inputs);
    const auto tokens = static_cast<int>(min(int64_t{kTokenTile}, layer.tokens - token));
    const Real* x = static_cast<const Real*>(layer.input) + token * layer.inputs;         // of the next token
    const Real* y = static_cast<const Real*>(layer.grad_output) + token * layer.outputs;  // of the next token
    const auto* inputs = reinterpret_cast<const Real*>(staged);
    int32_t row[kSampledEach], column[kSampledEach];
    float lanes[kSampledEach][kTokenLanes];
#pragma unroll
    for (int i = 0; i < kSampledEach; ++i) {
      const int64_t k = begin + i * kThreads + static_cast<int>(threadIdx.x);
      const int32_t position = list[min(k, end - 1)];  // one too many computes what another does
      row[i] = position / width;
      column[i] = position % width;
#pragma unroll
      for (int l = 0; l < kTokenLanes; ++l) lanes[i][l] = 0.0f;
    }
#pragma unroll 1
    for (int before = 0; before < tokens; before += kTokenLanes) {
#pragma unroll
      for (int l = 0; l < kTokenLanes; ++l) {
        const int left = tokens - before - l;
        if (left <= 0) break;  // the same for all threads
        if (kStaged && (l & (at_once - 1)) == 0) {
          stage(x, min(at_once, left) * width, staged);
          inputs = reinterpret_cast<const Real*>(staged);
        }
        const Real* const from = kStaged ? inputs : x;
#pragma unroll
        for (int i = 0; i < kSampledEach; ++i)
          lanes[i][l] += static_cast<float>(y[row[i]]) * static_cast<float>(from[column[i]]);
        x += width;
        y += layer.outputs;
        inputs += width;
      }
    }
#pragma unroll
    for (int i = 0; i < kSampledEach; ++i) {
      const int64_t k = begin + i * kThreads + static_cast<int>(threadIdx.x);
      const float sum = sum_of_lanes(lanes[i]);
      if (k < end) to[k] = sum;
    }
  }

  // Copies values that follow each other to shared memory, after all threads are done with what is there.
  __device__ static void stage(const Real* from, int count, unsigned char* to) {
    constexpr int kVector = 16 / static_cast<int>(sizeof(Real));
    __syncthreads();
    int copied = 0;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      const int vectors = count / kVector;
      for (int k = static_cast<int>(threadIdx.x); k < vectors; k += kThreads)
        reinterpret_cast<uint4*>(to)[k] = reinterpret_cast<const uint4*>(from)[k];
      copied = vectors * kVector;
    }
    for (int k = copied + static_cast<int>(threadIdx.x); k < count; k += kThreads)
      reinterpret_cast<Real*>(to)[k] = from[k];
    __syncthreads();
  }
};

// Adds the tiles' sums to the packed entries of a piece.
struct AddTiles {
  using Item = LinearTensor;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 6;
  static constexpr int kChunk = static_cast<int>(kPlacePiece);

  float* values;
  const int64_t* places;
  const float* sums;
  int64_t length;
  int64_t first;  // tile
  int64_t tiles;

  MIST_HOST_DEVICE static Range positions(const Item& tensor) { return tensor.positions(); }

  __device__ void operator()(const Item& tensor, int64_t begin, int64_t) const {
    const int64_t piece = tensor.piece_of(begin);
    const int64_t count = min(tiles, token_tiles(tensor.tokens) - first);
    for (int64_t k = places[piece] + static_cast<int>(threadIdx.x); k < places[piece + 1]; k += kThreads) {
      float value = values[k];
      for (int64_t tile = 0; tile < count; ++tile) value += sums[tile * length + k];
      values[k] = value;
    }
  }
};

void sampled_weight_grad(const Device& device, const Tensor& packed, const Tensor& places,
                         const std::vector<LinearTensor>& tensors, const Draw& draw, const int64_t* step) {
  const int64_t length = packed.numel();
  const auto* const at = static_cast<const int64_t*>(places.const_data_ptr());
  const int64_t entries[] = {length, 1};
  const Tensor list = torch::stable::new_empty(packed, {entries, 1}, ScalarType::Int);
  auto* const listed = static_cast<int32_t*>(list.mutable_data_ptr());
  for_each_chunk(device, tensors, ListKept{draw, step, {listed, at, length, Dtype::float32}});
  int64_t tiles = 0;
  for (const LinearTensor& tensor : tensors) tiles = std::max(tiles, token_tiles(tensor.tokens));
  if (length == 0 || tiles == 0) return;
  const int64_t at_a_time = std::min(tiles_at_a_time(length), tiles);
  const int64_t room[] = {at_a_time * length, 1};
  const Tensor memory = torch::stable::new_empty(packed, {room, 1}, ScalarType::Float);
  auto* const sums = static_cast<float*>(memory.mutable_data_ptr());
  const uint32_t group = pieces_of_group(draw.threshold);
  for (int64_t first = 0; first < tiles; first += at_a_time) {
    std::vector<TiledLinear> layers;
    for (const LinearTensor& tensor : tensors) layers.push_back(tiled(tensor, group, first, at_a_time));
    for_each_chunk_by_dtype<SumTile>(device, layers, listed, at, sums, length, group);
    auto* const values = static_cast<float*>(packed.mutable_data_ptr());
    for_each_chunk(device, tensors, AddTiles{values, at, sums, length, first, at_a_time});
  }
}

void sampled_weight_grad_cuda(const Tensor& packed, const TensorList& grad_output, const TensorList& input,
                              const OptionalTensorList& index, const Tensor& places, const std::vector<int64_t>& first,
                              const std::vector<int64_t>& ordinal, int64_t threshold, int64_t seed,
                              const Tensor& step) {
  Checker checker("sampled_weight_grad_", grad_output.at(0));
  const DeviceScalars scalars =
      check_scalars(checker, {}, std::nullopt, step, std::nullopt, std::nullopt, std::nullopt);
  const Draw draw = check_draw(checker, threshold, seed);
  const auto tensors = check_sampled_weight_grad(checker, packed, grad_output, input, index, places, first, ordinal);
  sampled_weight_grad(Device(packed), packed, places, tensors, draw, scalars.step);
}

}  // namespace
}  // namespace mist::cuda

STABLE_TORCH_LIBRARY_IMPL(mist_ext, CUDA, m) {
  m.impl("sampled_weight_grad_", TORCH_BOX(&mist::cuda::sampled_weight_grad_cuda));
}
