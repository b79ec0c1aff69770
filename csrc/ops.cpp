// The contracts of all ops, and the Python module `_C` that holds them with the CPU kernels.
//
// accumulate_         score += scale * grad^2 where the entry is not frozen (`frozen` is bit-packed, least significant
//                     first).
// select              the positions of the k largest scores, ties by lowest position, ascending int32.
// drop_apply_sgd_     for the entries that the keep rule keeps (philox.h): gradient / grad_scale * table[scale_code],
//                     weight decay, momentum, update. Nothing at all where found_inf is not 0.
// drop_apply_adamw_   the same with AdamW. `updates` counts an entry's updates; `correction` [2, n] holds 1 - beta1^i
//                     and sqrt(1 - beta2^i), whose last column also serves every later update.
// mask_               everything but the kept entries of a gradient becomes zero, those are multiplied by
//                     table[scale_code].
// places              where the kept entries of a step lie in a packed vector: one place for each piece of each
//                     tensor's list (grid.h), and the vector's length. On the host; it depends on the keep rule alone.
// pack_               the kept entries' gradients of all tensors in one vector, in order of selection.
// sampled_weight_grad_
//                     packed += grad_output^T input at the kept entries of each linear layer's weight [out, in] alone,
//                     in the order of sums of token_sums.h. `packed` may be longer than the places say.
// write_values_       replaces the bits of entries of tensors of any dtype; with `expected`, only where all of these
// are
//                     found. Then the same with the lists of `then_`, if they are given.
// encode_gaps         ascending positions as the gaps between them: one byte a position, 255 for a gap of 255 or more;
//                     those stand behind all bytes, in four bytes each, least significant first. On the host.
// decode_gaps         the positions of such a code: `count` of them, below `size`.
//
// `index` lists a tensor's selected entries, ascending (None: fully selected); momentum_buffer, exp_avg, exp_avg_sq,
// updates, master and scale_code hold one value a selected entry. `momentum_buffer` may be an empty list where momentum
// is 0, `scale_code` where nothing is scaled. `master` is an empty list where every parameter is float32; otherwise
// float32 copies of the selected entries of 16-bit parameters, of size 0 for the others. `ordinal` is the tensor's
// number in the selection, `threshold` the keep rule's integer (keep * 65536, rounded). `first` is the place of a
// tensor's entry 0 in the list that the keep rule draws by, where the tensor is a part of a larger one (empty: 0 for
// all). Where `packed` is given with its `places`, `grad` is an empty list, and gradients are read from there.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/library.h>

#include <bit>
#include <string>

#include "arguments.h"
#include "build_info.h"
#include "cpu/isa.h"
#include "cpu/keep.h"

STABLE_TORCH_LIBRARY(mist_ext, m) {
  m.def("accumulate_(Tensor(a!)[] score, Tensor[] grad, Tensor?[] frozen, float scale) -> ()");
  m.def("select(Tensor[] score, int[] k) -> Tensor[]");
  m.def(
      "drop_apply_sgd_(Tensor(a!)[] param, Tensor[] grad, Tensor?[] index, Tensor(b!)[] momentum_buffer, "
      "Tensor(c!)[] master, Tensor?[] scale_code, Tensor? table, int[] ordinal, Tensor lr, float momentum, "
      "float weight_decay, int threshold, int seed, Tensor step, Tensor? found_inf, Tensor? grad_scale, "
      "int[] first=[], Tensor? packed=None, Tensor? places=None) -> ()");
  m.def(
      "drop_apply_adamw_(Tensor(a!)[] param, Tensor[] grad, Tensor?[] index, Tensor(b!)[] exp_avg, "
      "Tensor(c!)[] exp_avg_sq, Tensor(d!)[] updates, Tensor(e!)[] master, Tensor?[] scale_code, Tensor? table, "
      "int[] ordinal, Tensor lr, float beta1, float beta2, float eps, float weight_decay, Tensor correction, "
      "int threshold, int seed, Tensor step, Tensor? found_inf, Tensor? grad_scale, int[] first=[], "
      "Tensor? packed=None, Tensor? places=None) -> ()");
  m.def(
      "mask_(Tensor(a!)[] grad, Tensor?[] index, Tensor?[] scale_code, Tensor? table, int[] ordinal, int threshold, "
      "int seed, Tensor step, int[] first=[]) -> ()");
  m.def("places(int[] count, int[] first, int[] ordinal, int threshold, int seed, int step) -> Tensor");
  m.def(
      "sampled_weight_grad_(Tensor(a!) packed, Tensor[] grad_output, Tensor[] input, Tensor?[] index, Tensor places, "
      "int[] first, int[] ordinal, int threshold, int seed, Tensor step) -> ()");
  m.def(
      "pack_(Tensor(a!) packed, Tensor[] grad, Tensor?[] index, Tensor places, int[] first, int[] ordinal, "
      "int threshold, int seed, Tensor step) -> ()");
  m.def(
      "write_values_(Tensor(a!)[] param, Tensor?[] index, Tensor[] value, Tensor[] expected, "
      "Tensor?[] then_index, Tensor[] then_value, Tensor[] then_expected) -> ()");
  m.def("encode_gaps(Tensor[] index) -> Tensor[]");
  m.def("decode_gaps(Tensor[] code, int[] count, int[] size) -> Tensor[]");
}

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = MIST_VERSION;
  info["compiler"] = __VERSION__;
  info["torch"] = MIST_BUILD_TORCH;
  info["cuda"] = MIST_CUDA;  // the toolkit's release and the architectures compiled for, or why there is none
  info["sources"] = MIST_SOURCES;
  return info;
}

// One byte (0 or 1) for each of n entries of a tensor's selection from `first` on.
pybind11::bytes keep_mask(int64_t seed, int64_t ordinal, int64_t step, int64_t n, int64_t threshold, int64_t first) {
  using mist::cpu::kWord;
  const mist::cpu::Keeper keeper(mist::check_keep_mask(seed, ordinal, step, n, threshold, first));
  std::string mask(static_cast<size_t>(n), '\0');
  for (int64_t at = first / kWord * kWord; at < first + n; at += kWord)
    for (uint64_t bits = keeper.kept(at, first, first + n); bits != 0; bits &= bits - 1)
      mask[static_cast<size_t>(at + std::countr_zero(bits) - first)] = 1;
  return pybind11::bytes(mask);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Schemas and CPU kernels of mist_ext";
  m.def("build_info", &build_info);
  m.def("keep_mask", &keep_mask, pybind11::arg("seed"), pybind11::arg("ordinal"), pybind11::arg("step"),
        pybind11::arg("n"), pybind11::arg("threshold"), pybind11::arg("first") = 0);
  m.def("instruction_set", &mist::cpu::instruction_set);
  m.def("instruction_sets", &mist::cpu::instruction_sets);
  m.def("use_instruction_set", &mist::cpu::use_instruction_set, pybind11::arg("name"));
}
