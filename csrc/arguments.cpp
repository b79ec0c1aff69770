#include "arguments.h"

#include <algorithm>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace mist {
namespace {

using torch::headeronly::ScalarType;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// A name for messages that costs nothing until it is printed.
struct Name {
  const char* list;
  int64_t position = -1;

  friend std::ostream& operator<<(std::ostream& out, const Name& name) {
    out << name.list;
    return name.position < 0 ? out : out << '[' << name.position << ']';
  }
};

std::string dtype_name(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    default: return "dtype number " + std::to_string(static_cast<int>(tensor.scalar_type()));
  }
}

const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: return "float32";
  }
}

std::string device_name(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device:") + std::to_string(tensor.get_device_index());
}

// Checks of one call: every tensor lies on the first one's device, and no memory that is written overlaps another's.
class Checker {
 public:
  Checker(const char* op, const Tensor& first) : op_(op), first_(first), cpu_(first.is_cpu()) {
    device_ = cpu_ ? -1 : first.get_device_index();
  }

  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) fail(op_, ": ", parts...);
  }

  void length(const char* list, size_t got, const char* expected_list, size_t expected) const {
    require(got == expected, list, " has ", got, " tensors, but ", expected_list, " has ", expected);
  }

  void placed(Name name, const Tensor& tensor) const {
    const bool same = tensor.is_cpu() == cpu_ && (cpu_ || tensor.get_device_index() == device_);
    if (!same)
      fail(op_, ": ", name, " is on ", device_name(tensor), ", expected ", device_name(first_), " like the rest");
    require(tensor.is_contiguous(), name, " is not contiguous; pass a contiguous tensor");
  }

  void typed(Name name, const Tensor& tensor, ScalarType type) const {
    if (tensor.scalar_type() != type)
      fail(op_, ": ", name, " has dtype ", dtype_name(tensor), ", expected ", dtype_name(type));
  }

  void sized(Name name, const Tensor& tensor, int64_t size, const char* why) const {
    const int64_t numel = tensor.numel();
    require(numel == size, name, " has ", numel, " entries, expected ", size, ", ", why);
  }

  Dtype floating(Name name, const Tensor& tensor) const {
    switch (tensor.scalar_type()) {
      case ScalarType::Float: return Dtype::float32;
      case ScalarType::BFloat16: return Dtype::bfloat16;
      case ScalarType::Half: return Dtype::float16;
      default: fail(op_, ": ", name, " has dtype ", dtype_name(tensor), ", expected float32, bfloat16 or float16");
    }
  }

  // Positions are int32, so a tensor holds at most 2^31 - 1 entries.
  void addressable(Name name, const Tensor& tensor) const {
    const int64_t numel = tensor.numel();
    require(numel <= std::numeric_limits<int32_t>::max(), name, " has ", numel,
            " entries; an index is int32, so at most 2147483647 are supported. Split the tensor");
  }

  void uses(Name name, const Tensor& tensor, bool written) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
    const auto bytes = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
    if (bytes > 0) spans_.push_back({begin, begin + bytes, written, name});
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
        fail(op_, ": ", other->name, " and ", span->name,
             " share memory, and one of them is written. Pass separate tensors");
      if (!furthest || span->end > furthest->end) furthest = span;
      if (span->written && (!furthest_written || span->end > furthest_written->end)) furthest_written = span;
    }
  }

 private:
  struct Span {
    uintptr_t begin, end;
    bool written;
    Name name;
  };

  const char* op_;
  const Tensor& first_;
  bool cpu_;
  int32_t device_;
  std::vector<Span> spans_;
};

const uint8_t* checked_codes(Checker& checker, const OptionalTensorList& scale_code, size_t t, int64_t selected) {
  if (scale_code.empty() || !scale_code[t]) return nullptr;
  const Name name{"scale_code", static_cast<int64_t>(t)};
  const auto& code = scale_code[t];
  checker.placed(name, *code);
  checker.typed(name, *code, ScalarType::Byte);
  checker.sized(name, *code, selected, "one for each selected entry");
  checker.uses(name, *code, false);
  return static_cast<const uint8_t*>(code->const_data_ptr());
}

// The index of one tensor, and through `selected` how many entries are selected.
const int32_t* checked_index(Checker& checker, Name name, const std::optional<Tensor>& index, int64_t size,
                             int64_t& selected) {
  selected = size;
  if (!index) return nullptr;
  checker.placed(name, *index);
  checker.typed(name, *index, ScalarType::Int);
  selected = index->numel();
  checker.require(selected <= size, name, " has ", selected, " entries, more than the tensor it points into, ", size);
  checker.uses(name, *index, false);
  return static_cast<const int32_t*>(index->const_data_ptr());
}

constexpr int64_t kLongestList = int64_t{1} << 31;

// What one tensor is drawn by; its selected entries are counted already.
template <class Requiring>
void check_listed(const Requiring& checker, size_t t, const std::vector<int64_t>& first,
                  const std::vector<int64_t>& ordinal, Listed& list) {
  checker.require(ordinal[t] >= 0 && ordinal[t] <= std::numeric_limits<uint32_t>::max(), "ordinal[", t, "] is ",
                  ordinal[t], ", expected 0 to 4294967295");
  list.ordinal = static_cast<uint32_t>(ordinal[t]);
  if (first.empty()) return;
  const int64_t last = kLongestList - list.selected;
  checker.require(first[t] >= 0 && first[t] <= last, "first[", t, "] is ", first[t], ", expected 0 to ", last,
                  ", so that its ", list.selected, " entries end within ", kLongestList);
  list.first = static_cast<uint32_t>(first[t]);
}

// Counts the pieces of all lists.
template <class SomeList>
void number_pieces(std::vector<SomeList>& lists) {
  uint32_t pieces = 0;
  for (SomeList& list : lists) {
    list.piece = pieces;
    pieces += static_cast<uint32_t>(cells(list.positions(), kPlacePiece));
  }
}

// `pieces` are those of the lists that the vector was packed from.
void check_packed(Checker& checker, const Tensor& packed, const Tensor& places, int64_t pieces, bool written) {
  checker.placed({"packed"}, packed);
  if (packed.scalar_type() != ScalarType::Float && packed.scalar_type() != ScalarType::BFloat16)
    checker.require(false, "packed has dtype ", dtype_name(packed), ", expected float32 or bfloat16");
  checker.placed({"places"}, places);
  checker.typed({"places"}, places, ScalarType::Long);
  checker.sized({"places"}, places, pieces + 1, "one for each piece of 2048 positions and one for the end");
  checker.uses({"packed"}, packed, written);
}

template <class Pointer>
PackedVector<Pointer> packed_vector(const Tensor& packed, const Tensor& places, Pointer values) {
  const Dtype dtype = packed.scalar_type() == ScalarType::BFloat16 ? Dtype::bfloat16 : Dtype::float32;
  return {values, static_cast<const int64_t*>(places.const_data_ptr()), packed.numel(), dtype};
}

// Optimiser state: float32, or int32 counts.
template <class Value>
Value* checked_compact(Checker& checker, Name name, const Tensor& tensor, int64_t selected) {
  checker.placed(name, tensor);
  checker.typed(name, tensor, std::is_same_v<Value, float> ? ScalarType::Float : ScalarType::Int);
  checker.sized(name, tensor, selected, "one for each selected entry");
  checker.uses(name, tensor, true);
  return static_cast<Value*>(tensor.mutable_data_ptr());
}

std::string shape_name(const Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

void check_same_shape(const char* op, Name name, const Tensor& tensor, Name like, const Tensor& other) {
  const auto shape = tensor.sizes(), expected = other.sizes();
  if (!std::equal(shape.begin(), shape.end(), expected.begin(), expected.end()))
    fail(op, ": ", name, " has shape ", shape_name(tensor), ", but ", like, " has ", shape_name(other));
}

}  // namespace

std::vector<AccumulateTensor> check_accumulate(const TensorList& score, const TensorList& grad,
                                               const OptionalTensorList& frozen) {
  Checker checker("accumulate_", score.at(0));
  checker.length("grad", grad.size(), "score", score.size());
  checker.length("frozen", frozen.size(), "score", score.size());
  std::vector<AccumulateTensor> checked;
  checked.reserve(score.size());
  for (size_t t = 0; t < score.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name score_name{"score", i}, grad_name{"grad", i}, frozen_name{"frozen", i};
    checker.placed(score_name, score[t]);
    checker.typed(score_name, score[t], ScalarType::Float);
    checker.placed(grad_name, grad[t]);
    const Dtype dtype = checker.floating(grad_name, grad[t]);
    check_same_shape("accumulate_", grad_name, grad[t], score_name, score[t]);
    checker.uses(score_name, score[t], true);
    checker.uses(grad_name, grad[t], false);
    const uint8_t* bits = nullptr;
    const int64_t size = score[t].numel();
    if (frozen[t]) {
      checker.placed(frozen_name, *frozen[t]);
      checker.typed(frozen_name, *frozen[t], ScalarType::Byte);
      checker.sized(frozen_name, *frozen[t], (size + 7) / 8, "one bit for each entry of the score");
      checker.uses(frozen_name, *frozen[t], false);
      bits = static_cast<const uint8_t*>(frozen[t]->const_data_ptr());
    }
    checked.push_back({static_cast<float*>(score[t].mutable_data_ptr()), grad[t].const_data_ptr(), bits, size, dtype});
  }
  checker.no_overlap();
  return checked;
}

std::vector<SelectTensor> check_select(const TensorList& score, const std::vector<int64_t>& k) {
  Checker checker("select", score.at(0));
  checker.length("k", k.size(), "score", score.size());
  std::vector<SelectTensor> checked;
  checked.reserve(score.size());
  for (size_t t = 0; t < score.size(); ++t) {
    const Name name{"score", static_cast<int64_t>(t)};
    checker.placed(name, score[t]);
    checker.typed(name, score[t], ScalarType::Float);
    checker.addressable(name, score[t]);
    const int64_t size = score[t].numel();
    checker.require(k[t] >= 0 && k[t] <= size, "k[", t, "] is ", k[t], ", expected 0 to ", size, ", the size of ",
                    name);
    checked.push_back({static_cast<const float*>(score[t].const_data_ptr()), size, k[t]});
  }
  return checked;
}

namespace {

// What all drop_apply ops share of one tensor.
void check_drop_apply(const char* op, Checker& checker, const DropApplyArguments& given, size_t t,
                      DropApplyTensor& tensor) {
  const auto i = static_cast<int64_t>(t);
  const Name param_name{"param", i}, grad_name{"grad", i};
  const Tensor& param = given.param[t];
  checker.placed(param_name, param);
  tensor.dtype = checker.floating(param_name, param);
  checker.addressable(param_name, param);
  checker.uses(param_name, param, true);
  tensor.param = param.mutable_data_ptr();
  if (!given.packed) {
    const Tensor& grad = given.grad[t];
    checker.placed(grad_name, grad);
    if (grad.scalar_type() != param.scalar_type())
      fail(op, ": ", grad_name, " has dtype ", dtype_name(grad), ", but ", param_name, " has ", dtype_name(param));
    check_same_shape(op, grad_name, grad, param_name, param);
    checker.uses(grad_name, grad, false);
    tensor.grad = grad.const_data_ptr();
  }
  tensor.index = checked_index(checker, {"index", i}, given.index[t], param.numel(), tensor.selected);
  if (tensor.dtype != Dtype::float32) {
    checker.require(!given.master.empty(), param_name, " has dtype ", dtype_name(param),
                    ", which needs a compact float32 master, but master is empty");
    tensor.master = checked_compact<float>(checker, {"master", i}, given.master[t], tensor.selected);
  } else if (!given.master.empty()) {
    checker.sized({"master", i}, given.master[t], 0, "since a float32 parameter has no master");
  }
  tensor.code = checked_codes(checker, given.scale_code, t, tensor.selected);
  check_listed(checker, t, given.first, given.ordinal, tensor);
}

// Checks every tensor; `state(tensor, t)` adds what the rule keeps for it.
template <class SomeTensor, class State>
std::vector<SomeTensor> checked_drop_apply(const char* op, Checker& checker, const DropApplyArguments& given,
                                           const State& state) {
  const size_t count = given.param.size();
  const bool packed = given.packed.has_value();
  checker.require(packed == given.places.has_value(), packed ? "packed" : "places", " is given, but ",
                  packed ? "places" : "packed", " is None; give both or neither");
  checker.require(!packed || given.grad.empty(), "packed is given, but grad has ", given.grad.size(),
                  " tensors; give an empty list");
  if (!packed) checker.length("grad", given.grad.size(), "param", count);
  checker.length("index", given.index.size(), "param", count);
  if (!given.master.empty()) checker.length("master", given.master.size(), "param", count);
  if (!given.scale_code.empty()) checker.length("scale_code", given.scale_code.size(), "param", count);
  checker.length("ordinal", given.ordinal.size(), "param", count);
  if (!given.first.empty()) checker.length("first", given.first.size(), "param", count);
  std::vector<SomeTensor> checked(count);
  for (size_t t = 0; t < count; ++t) {
    check_drop_apply(op, checker, given, t, checked[t]);
    state(checked[t], t);
  }
  number_pieces(checked);
  if (packed) check_packed(checker, *given.packed, *given.places, piece_count(checked), false);
  checker.no_overlap();
  return checked;
}

}  // namespace

std::vector<SgdTensor> check_drop_apply_sgd(const DropApplyArguments& arguments, const TensorList& momentum_buffer,
                                            bool has_momentum) {
  Checker checker("drop_apply_sgd_", arguments.param.at(0));
  if (has_momentum || !momentum_buffer.empty())
    checker.length("momentum_buffer", momentum_buffer.size(), "param", arguments.param.size());
  return checked_drop_apply<SgdTensor>("drop_apply_sgd_", checker, arguments, [&](SgdTensor& tensor, size_t t) {
    if (momentum_buffer.empty()) return;
    const Name name{"momentum_buffer", static_cast<int64_t>(t)};
    tensor.momentum = checked_compact<float>(checker, name, momentum_buffer[t], tensor.selected);
  });
}

std::vector<AdamWTensor> check_drop_apply_adamw(const DropApplyArguments& arguments, const TensorList& exp_avg,
                                                const TensorList& exp_avg_sq, const TensorList& updates) {
  Checker checker("drop_apply_adamw_", arguments.param.at(0));
  checker.length("exp_avg", exp_avg.size(), "param", arguments.param.size());
  checker.length("exp_avg_sq", exp_avg_sq.size(), "param", arguments.param.size());
  checker.length("updates", updates.size(), "param", arguments.param.size());
  return checked_drop_apply<AdamWTensor>("drop_apply_adamw_", checker, arguments, [&](AdamWTensor& tensor, size_t t) {
    const auto i = static_cast<int64_t>(t);
    tensor.exp_avg = checked_compact<float>(checker, {"exp_avg", i}, exp_avg[t], tensor.selected);
    tensor.exp_avg_sq = checked_compact<float>(checker, {"exp_avg_sq", i}, exp_avg_sq[t], tensor.selected);
    tensor.updates = checked_compact<int32_t>(checker, {"updates", i}, updates[t], tensor.selected);
  });
}

Sgd::Options sgd_options(double momentum, double weight_decay) {
  return {static_cast<float>(momentum), static_cast<float>(weight_decay)};
}

AdamW::Options check_adamw(const Tensor& first, double beta1, double beta2, double eps, double weight_decay,
                           const Tensor& correction) {
  const Checker checker("drop_apply_adamw_", first);
  checker.placed({"correction"}, correction);
  checker.typed({"correction"}, correction, ScalarType::Float);
  if (correction.dim() != 2 || correction.size(0) != 2 || correction.size(1) == 0)
    fail("drop_apply_adamw_: correction has shape ", shape_name(correction), ", expected [2, n] with n of at least 1");
  return {static_cast<float>(beta1),
          static_cast<float>(1 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1 - beta2),
          static_cast<float>(eps),
          static_cast<float>(weight_decay),
          static_cast<const float*>(correction.const_data_ptr()),
          correction.size(1)};
}

std::vector<MaskTensor> check_mask(const TensorList& grad, const OptionalTensorList& index,
                                   const OptionalTensorList& scale_code, const std::vector<int64_t>& ordinal,
                                   const std::vector<int64_t>& first) {
  Checker checker("mask_", grad.at(0));
  checker.length("index", index.size(), "grad", grad.size());
  if (!scale_code.empty()) checker.length("scale_code", scale_code.size(), "grad", grad.size());
  checker.length("ordinal", ordinal.size(), "grad", grad.size());
  if (!first.empty()) checker.length("first", first.size(), "grad", grad.size());
  std::vector<MaskTensor> checked;
  checked.reserve(grad.size());
  for (size_t t = 0; t < grad.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name name{"grad", i};
    MaskTensor tensor{};
    checker.placed(name, grad[t]);
    tensor.dtype = checker.floating(name, grad[t]);
    checker.addressable(name, grad[t]);
    checker.uses(name, grad[t], true);
    tensor.grad = grad[t].mutable_data_ptr();
    tensor.size = grad[t].numel();
    tensor.index = checked_index(checker, {"index", i}, index[t], tensor.size, tensor.selected);
    tensor.code = checked_codes(checker, scale_code, t, tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
    checked.push_back(tensor);
  }
  checker.no_overlap();
  return checked;
}

namespace {

// For an op that has no tensors.
struct Requirements {
  const char* op;

  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) fail(op, ": ", parts...);
  }
};

}  // namespace

std::vector<Listed> check_places(const std::vector<int64_t>& count, const std::vector<int64_t>& first,
                                 const std::vector<int64_t>& ordinal) {
  const Requirements checker{"places"};
  checker.require(ordinal.size() == count.size(), "ordinal has ", ordinal.size(), " entries, but count has ",
                  count.size());
  checker.require(first.empty() || first.size() == count.size(), "first has ", first.size(), " entries, but count has ",
                  count.size());
  std::vector<Listed> lists(count.size());
  for (size_t t = 0; t < count.size(); ++t) {
    checker.require(count[t] >= 0 && count[t] <= kLongestList, "count[", t, "] is ", count[t], ", expected 0 to ",
                    kLongestList);
    lists[t].selected = count[t];
    check_listed(checker, t, first, ordinal, lists[t]);
  }
  number_pieces(lists);
  return lists;
}

std::vector<PackTensor> check_pack(const Tensor& packed, const TensorList& grad, const OptionalTensorList& index,
                                   const Tensor& places, const std::vector<int64_t>& first,
                                   const std::vector<int64_t>& ordinal) {
  Checker checker("pack_", grad.at(0));
  checker.length("index", index.size(), "grad", grad.size());
  checker.length("ordinal", ordinal.size(), "grad", grad.size());
  if (!first.empty()) checker.length("first", first.size(), "grad", grad.size());
  std::vector<PackTensor> checked(grad.size());
  for (size_t t = 0; t < grad.size(); ++t) {
    const auto i = static_cast<int64_t>(t);
    const Name name{"grad", i};
    PackTensor& tensor = checked[t];
    checker.placed(name, grad[t]);
    tensor.dtype = checker.floating(name, grad[t]);
    checker.addressable(name, grad[t]);
    checker.uses(name, grad[t], false);
    tensor.grad = grad[t].const_data_ptr();
    tensor.index = checked_index(checker, {"index", i}, index[t], grad[t].numel(), tensor.selected);
    check_listed(checker, t, first, ordinal, tensor);
  }
  number_pieces(checked);
  check_packed(checker, packed, places, piece_count(checked), true);
  checker.no_overlap();
  return checked;
}

Packed packed_gradients(const std::optional<Tensor>& packed, const std::optional<Tensor>& places) {
  return packed ? packed_vector(*packed, *places, packed->const_data_ptr()) : Packed{};
}

PackedOutput packed_output(const Tensor& packed, const Tensor& places) {
  return packed_vector(packed, places, packed.mutable_data_ptr());
}

DeviceScalars check_scalars(const char* op, const Tensor& first, const OptionalTensorList& scale_code,
                            const std::optional<Tensor>& table, const Tensor& step, const std::optional<Tensor>& lr,
                            const std::optional<Tensor>& found_inf, const std::optional<Tensor>& grad_scale) {
  const Checker checker(op, first);
  const auto scalar = [&](const char* list, const std::optional<Tensor>& tensor) -> const float* {
    if (!tensor) return nullptr;
    checker.placed({list}, *tensor);
    checker.typed({list}, *tensor, ScalarType::Float);
    checker.sized({list}, *tensor, 1, "a single value");
    return static_cast<const float*>(tensor->const_data_ptr());
  };
  DeviceScalars scalars{};
  checker.placed({"step"}, step);
  checker.typed({"step"}, step, ScalarType::Long);
  checker.sized({"step"}, step, 1, "a single value");
  scalars.step = static_cast<const int64_t*>(step.const_data_ptr());
  scalars.lr = scalar("lr", lr);
  scalars.found_inf = scalar("found_inf", found_inf);
  scalars.grad_scale = scalar("grad_scale", grad_scale);
  const bool scaled =
      std::any_of(scale_code.begin(), scale_code.end(), [](const auto& code) { return code.has_value(); });
  if (scaled) {
    checker.require(table.has_value(), "scale_code is given, but table, which turns a code into a factor, is None");
    checker.placed({"table"}, *table);
    checker.typed({"table"}, *table, ScalarType::Float);
    checker.sized({"table"}, *table, 256, "one factor for each uint8 code");
    scalars.table = static_cast<const float*>(table->const_data_ptr());
  }
  return scalars;
}

Draw check_draw(const char* op, int64_t threshold, int64_t seed) {
  if (threshold < 0 || threshold > 65536)
    fail(op, ": threshold is ", threshold, ", expected 0 (keep nothing) to 65536 (keep everything)");
  return {static_cast<uint64_t>(seed), static_cast<uint32_t>(threshold)};
}

void fail_places(const char* op, int64_t end, int64_t length) {
  if (end != length) fail(op, ": places end at ", end, ", but packed has ", length, " entries");
  fail(op, ": places do not fit what this step keeps; make them by ops.places for the same lists and step");
}

void fail_nan(const char* op, size_t tensor, int64_t entry) {
  fail(op, ": score[", tensor, "] is NaN at entry ", entry, "; scores must be numbers to be ranked");
}

}  // namespace mist
