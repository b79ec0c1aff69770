// What the kernels work on: plain pointers into checked tensors. No torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "grid.h"

namespace mist {

enum class Dtype : uint8_t { float32, bfloat16, float16 };

constexpr size_t itemsize(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

struct AccumulateTensor {
  float* score;
  const void* grad;
  const uint8_t* frozen;  // one bit an entry, least significant first; null: none is frozen
  int64_t size;
  Dtype dtype;  // of grad
};

struct SelectTensor {
  const float* score;
  int64_t size;
  int64_t k;
};

// One tensor and the part of a selection list that it holds: its entry j has the position first + j in the list, by
// which it is drawn.
struct Listed {
  int64_t selected;
  uint32_t ordinal;
  uint32_t first;
  uint32_t piece;  // the number of its first piece, counted over all tensors
  Dtype dtype;

  MIST_HOST_DEVICE Range positions() const { return {first, first + selected}; }

  // The number of the piece that a position lies in.
  MIST_HOST_DEVICE int64_t piece_of(int64_t position) const {
    return piece + position / kPlacePiece - first / kPlacePiece;
  }
};

// How many pieces all lists have.
template <class SomeList>
int64_t piece_count(const std::vector<SomeList>& lists) {
  return lists.empty() ? 0 : lists.back().piece + cells(lists.back().positions(), kPlacePiece);
}

// Entry j of the selected ones is at index[j], or at j where the tensor is fully selected (index null).
struct DropApplyTensor : Listed {
  void* param;
  const void* grad;  // of param's dtype; null where gradients are packed
  const int32_t* index;
  float* master;        // compact; null where param is float32
  const uint8_t* code;  // compact; null: no gradient is scaled
};

struct SgdTensor : DropApplyTensor {
  float* momentum;  // compact; null where the momentum factor is 0
};

struct AdamWTensor : DropApplyTensor {
  float* exp_avg;     // compact
  float* exp_avg_sq;  // compact
  int32_t* updates;   // compact: how often the entry was updated so far
};

struct MaskTensor : Listed {
  void* grad;
  const int32_t* index;
  const uint8_t* code;
  int64_t size;
};

struct PackTensor : Listed {
  const void* grad;
  const int32_t* index;
};

// A linear layer's operands, of whose weight gradient grad_output^T input some entries are wanted: of the weight's
// [outputs, inputs] those that are selected and kept.
struct LinearTensor : Listed {
  const void* grad_output;  // [tokens, outputs]
  const void* input;        // [tokens, inputs]
  const int32_t* index;
  int64_t tokens;
  int64_t outputs;
  int64_t inputs;
};

// What some entries of a tensor are to be, and what they must be before.
struct Replacement {
  const int32_t* index;  // ascending positions; null: all entries
  int64_t selected;
  const void* value;     // compact, of the tensor's dtype
  const void* expected;  // the same; null: anything may be there
};

// A tensor of any dtype, of whose bits one replacement is made, then another one.
struct WriteTensor {
  void* param;
  int64_t size;
  size_t itemsize;  // 1, 2, 4 or 8
  Replacement first;
  Replacement then;
};

// An entry that is not what a replacement expects.
struct Mismatch {
  int64_t tensor = -1;  // -1: there is none
  bool then = false;    // whether the second replacement found it
  int64_t position = -1;
};

// What is wrong with a code of gaps.
enum class GapFault : uint8_t { none, length, escape, range };

// The kept entries' gradients of a list of tensors in one vector: tensor by tensor, in order of selection.
template <class Pointer>
struct PackedVector {
  Pointer values;
  const int64_t* places;  // of each piece's first kept entry, then the vector's length; null: there is no such vector
  int64_t length;
  Dtype dtype;  // float32 or bfloat16
};
using Packed = PackedVector<const void*>;
using PackedOutput = PackedVector<void*>;

// Values that live on the tensors' device, so that no launch waits for the host. Null where not given.
struct DeviceScalars {
  const int64_t* step;
  const float* table;
  const float* lr;
  const float* found_inf;
  const float* grad_scale;
};

// What all tensors' draws share, beside the step.
struct Draw {
  uint64_t seed;
  uint32_t threshold;
};

}  // namespace mist
