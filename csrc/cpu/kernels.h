// The loops on the CPU. No torch: registration.cpp connects them to it.
#pragma once

#include <cstdint>
#include <vector>

#include "../rules.h"
#include "../tensors.h"

namespace mist::cpu {

void accumulate(const std::vector<AccumulateTensor>& tensors, float scale);

struct Nan {
  int64_t tensor = -1;  // -1: there is none
  int64_t entry = -1;
};

// Fills index[t], which has room for tensors[t].k positions. What they hold after a NaN means nothing.
Nan select(const std::vector<SelectTensor>& tensors, const std::vector<int32_t*>& index);

template <class Rule>  // Sgd or AdamW
void drop_apply(const std::vector<typename Rule::Tensor>& tensors, const Draw& draw, const DeviceScalars& scalars,
                const typename Rule::Options& options, const Packed& packed = {});

// The number of a tensor whose index is not strictly ascending, -1 if there is none.
int64_t find_descending(const std::vector<MaskTensor>& tensors);

// Relies on ascending indices: which part of one lies in a piece of a gradient is looked up.
void mask(const std::vector<MaskTensor>& tensors, const Draw& draw, const DeviceScalars& scalars);

// Fills places, which has room for one of each piece and for the packed vector's length.
void places(const std::vector<Listed>& lists, const Draw& draw, int64_t step, int64_t* places);

// Adds to values, which places say the layout of, as PackedOutput does.
void sampled_weight_grad(const std::vector<LinearTensor>& tensors, const Draw& draw, int64_t step, float* values,
                         const int64_t* places);

// The number of a replacement whose index is not strictly ascending, two for each tensor; -1 if there is none.
int64_t find_descending(const std::vector<WriteTensor>& tensors);

// Makes both replacements of all tensors, or none where something else than expected is found. Relies on ascending
// indices. Either all replacements have what they expect, or none.
Mismatch write_values(const std::vector<WriteTensor>& tensors);

// How many gaps of an index have no room in a byte, -1 if it is not strictly ascending from 0 or more.
int64_t count_escapes(const int32_t* index, int64_t count);

// Fills code, which has room for count bytes and four for every escape.
void encode_gaps(const int32_t* index, int64_t count, int64_t escapes, uint8_t* code);

// Fills index, which has room for count positions below size.
GapFault decode_gaps(const uint8_t* code, int64_t bytes, int64_t count, int64_t size, int32_t* index);

void pack(const std::vector<PackTensor>& tensors, const Draw& draw, int64_t step, const PackedOutput& packed);

}  // namespace mist::cpu
