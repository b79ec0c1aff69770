// The loops of csrc/cpu on std::thread, without torch, for the sanitizers: `python tests/sanitize` builds and runs it.
//
// Every case must give the bits of one thread on the plain instruction set, whatever the number of threads and the
// instruction set, and also while other threads run other cases and change the instruction set.
//   loops                        all of that
//   loops instruction_sets       prints those that this machine runs
//   loops FAULT INSTRUCTION_SET  does one wrong thing on purpose, for the sanitizer to find
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/real.h"

namespace {

thread_local int64_t threads = 1;  // of the calls that this thread makes
int64_t overlap = 0;               // how many pieces a part takes from the one before: a race, unless 0

}  // namespace

namespace mist::cpu {

void parallel_for(int64_t count, int64_t, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t parts = std::min(count, threads);
  std::vector<std::thread> others;
  for (int64_t part = 1; part < parts; ++part)
    others.emplace_back([&, part] { body(count * part / parts - overlap, count * (part + 1) / parts); });
  if (parts > 0) body(0, count / parts);
  for (std::thread& other : others) other.join();
}

}  // namespace mist::cpu

namespace {

using namespace mist;

using Block = std::vector<unsigned char>;
using Bits = std::vector<Block>;

constexpr Dtype kDtypes[] = {Dtype::float32, Dtype::bfloat16, Dtype::float16};
constexpr int64_t kSizes[] = {0, 1, 63, 64, 8193, 33000};  // around the loops' words and pieces
constexpr uint32_t kTenth = 6554;                          // of the draws lie below it

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::_Exit(1);  // other threads may still run
}

// The memory of a case's tensors, a block of exactly its size for each, so that a step beyond one is seen.
class Memory {
 public:
  template <class T>
  T* hold(const std::vector<T>& values) {
    Block& block = blocks_.emplace_back(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(block.data(), values.data(), block.size());
    return reinterpret_cast<T*>(block.data());
  }

  void* hold_as(Dtype dtype, const std::vector<float>& values) {
    void* held = nullptr;
    cpu::with_dtype(dtype, [&](auto* type) {
      held = hold(std::vector<std::remove_pointer_t<decltype(type)>>(values.begin(), values.end()));
    });
    return held;
  }

  const Bits& bits() const { return blocks_; }

 private:
  Bits blocks_;
};

class Random {
 public:
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(engine_() * uint64_t{bound} >> 32); }
  float number(float low, float high) {
    return low + (high - low) * static_cast<float>(below(1 << 24)) / static_cast<float>(1 << 24);
  }
  std::vector<float> numbers(int64_t count, float low = -1, float high = 1) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = number(low, high);
    return values;
  }
  template <class T>
  std::vector<T> integers(int64_t count, uint32_t bound) {
    std::vector<T> values(static_cast<size_t>(count));
    for (T& value : values) value = static_cast<T>(below(bound));
    return values;
  }
  std::vector<int32_t> positions(int64_t size) {  // about a third
    std::vector<int32_t> chosen;
    for (int64_t at = 0; at < size; ++at)
      if (below(3) == 0) chosen.push_back(static_cast<int32_t>(at));
    return chosen;
  }

 private:
  std::mt19937 engine_;
};

Bits accumulate() {
  Random random;
  Memory memory;
  std::vector<AccumulateTensor> tensors;
  for (const int64_t size : kSizes) {
    for (const Dtype dtype : kDtypes) {
      for (const bool some_frozen : {false, true}) {
        std::vector<uint8_t> frozen(static_cast<size_t>(some_frozen ? (size + 7) / 8 : 0));
        for (size_t at = 0; at < frozen.size(); at += 50) frozen[at] = static_cast<uint8_t>(random.below(256));
        tensors.push_back({memory.hold(random.numbers(size)), memory.hold_as(dtype, random.numbers(size)),
                           memory.hold(frozen), size, dtype});
      }
    }
  }
  const Bits before = memory.bits();
  cpu::accumulate(tensors, 0.125f);
  require(memory.bits() != before, "accumulate changed nothing");
  return memory.bits();
}

// What the updates of one kept entry read, beside the tensors.
struct Scalars {
  int64_t step = (int64_t{3} << 32) + 7;
  float table[4] = {0.5f, 1, 1.5f, 2};
  float lr = 0.01f, found_inf = 0, grad_scale = 4;

  DeviceScalars pointers() const { return {&step, table, &lr, &found_inf, &grad_scale}; }
};

// The place of an entry 0 in its list: on the pieces' grid or off it, some far behind.
constexpr uint32_t kFirsts[] = {0, 1, 63, 2048, 8190, 2147450000};

// Numbers the lists and says where each begins; returns what places gives.
template <class Tensor>
std::vector<int64_t> place(std::vector<Tensor>& tensors, uint32_t threshold, int64_t step) {
  uint32_t piece = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    tensors[t].ordinal = static_cast<uint32_t>(t);
    tensors[t].first = kFirsts[t % std::size(kFirsts)];
    tensors[t].piece = piece;
    piece += static_cast<uint32_t>(cells(tensors[t].positions(), kPlacePiece));
  }
  std::vector<int64_t> places(piece + 1, -1);
  cpu::places({tensors.begin(), tensors.end()}, {1993, threshold}, step, places.data());
  return places;
}

enum class Source { dense, float32, bfloat16 };  // of gradients: their tensors, or a packed vector

template <class Rule>
Bits drop_apply(const typename Rule::Options& options, uint32_t threshold, Source source) {
  Random random;
  Memory memory;
  std::vector<typename Rule::Tensor> tensors;
  const bool dense = source == Source::dense;
  for (const int64_t size : kSizes) {
    for (const Dtype dtype : kDtypes) {
      for (const bool whole : {false, true}) {
        const std::vector<int32_t> index = whole ? std::vector<int32_t>{} : random.positions(size);
        const auto selected = whole ? size : static_cast<int64_t>(index.size());
        typename Rule::Tensor tensor{};
        tensor.param = memory.hold_as(dtype, random.numbers(size));
        tensor.grad = dense ? memory.hold_as(dtype, random.numbers(size)) : nullptr;
        tensor.index = memory.hold(index);
        tensor.master = dtype == Dtype::float32 ? nullptr : memory.hold(random.numbers(selected));
        tensor.code = whole ? nullptr : memory.hold(random.integers<uint8_t>(selected, 4));
        tensor.selected = selected;
        tensor.dtype = dtype;
        if constexpr (std::is_same_v<Rule, Sgd>) {
          tensor.momentum = options.momentum == 0 ? nullptr : memory.hold(random.numbers(selected));
        } else {
          tensor.exp_avg = memory.hold(random.numbers(selected));
          tensor.exp_avg_sq = memory.hold(random.numbers(selected, 0, 1));
          tensor.updates = memory.hold(random.integers<int32_t>(selected, 20));
        }
        tensors.push_back(tensor);
      }
    }
  }
  Scalars scalars;
  const int64_t* const places = memory.hold(place(tensors, threshold, scalars.step));
  Packed packed{};
  if (!dense) {
    const Dtype wire = source == Source::float32 ? Dtype::float32 : Dtype::bfloat16;
    const int64_t length = places[piece_count(tensors)];
    packed = {memory.hold_as(wire, random.numbers(length)), places, length, wire};
  }
  const Bits before = memory.bits();
  scalars.found_inf = 1;
  cpu::drop_apply<Rule>(tensors, {1993, threshold}, scalars.pointers(), options, packed);
  require(memory.bits() == before, "drop_apply changed something in spite of found_inf");
  scalars.found_inf = 0;
  cpu::drop_apply<Rule>(tensors, {1993, threshold}, scalars.pointers(), options, packed);
  require((memory.bits() != before) == (threshold > 0), "drop_apply changed nothing, or something that it drops");
  return memory.bits();
}

Bits sgd(uint32_t threshold, Source source = Source::dense) {
  return drop_apply<Sgd>({0.9f, 0.01f}, threshold, source);
}

Bits sgd_without_momentum() { return drop_apply<Sgd>({0, 0.01f}, kTenth, Source::dense); }

Bits adamw(uint32_t threshold, Source source = Source::dense) {
  std::vector<float> correction;
  for (int n = 0; n < 10; ++n) correction.push_back(1 - std::pow(0.9f, static_cast<float>(n)));
  for (int n = 0; n < 10; ++n) correction.push_back(std::sqrt(1 - std::pow(0.99f, static_cast<float>(n))));
  return drop_apply<AdamW>({0.9f, 0.1f, 0.99f, 0.01f, 1e-8f, 0.01f, correction.data(), 10}, threshold, source);
}

Bits mask(uint32_t threshold) {
  Random random;
  Memory memory;
  std::vector<MaskTensor> tensors;
  for (const int64_t size : {0, 1, 63, 64, 8193, 131100}) {  // the last one is two pieces
    for (const Dtype dtype : kDtypes) {
      for (const bool whole : {false, true}) {
        const std::vector<int32_t> index = whole ? std::vector<int32_t>{} : random.positions(size);
        const auto selected = whole ? size : static_cast<int64_t>(index.size());
        const std::vector<uint8_t> code = random.integers<uint8_t>(selected, 4);
        MaskTensor tensor{};
        tensor.grad = memory.hold_as(dtype, random.numbers(size));
        tensor.index = memory.hold(index);
        tensor.code = whole ? nullptr : memory.hold(code);
        tensor.size = size;
        tensor.selected = selected;
        tensor.dtype = dtype;
        tensors.push_back(tensor);
      }
    }
  }
  place(tensors, threshold, Scalars().step);
  require(cpu::find_descending(tensors) == -1, "an ascending index is refused");
  const Bits before = memory.bits();
  cpu::mask(tensors, {1993, threshold}, Scalars().pointers());
  require(memory.bits() != before, "mask changed nothing");
  return memory.bits();
}

Bits pack(uint32_t threshold, Dtype wire) {
  Random random;
  Memory memory;
  std::vector<PackTensor> tensors;
  for (const int64_t size : kSizes) {
    for (const Dtype dtype : kDtypes) {
      for (const bool whole : {false, true}) {
        const std::vector<int32_t> index = whole ? std::vector<int32_t>{} : random.positions(size);
        PackTensor tensor{};
        tensor.grad = memory.hold_as(dtype, random.numbers(size));
        tensor.index = memory.hold(index);
        tensor.selected = whole ? size : static_cast<int64_t>(index.size());
        tensor.dtype = dtype;
        tensors.push_back(tensor);
      }
    }
  }
  const Scalars scalars;
  const int64_t* const places = memory.hold(place(tensors, threshold, scalars.step));
  const int64_t length = places[piece_count(tensors)];
  void* const packed = memory.hold_as(wire, std::vector<float>(static_cast<size_t>(length), 7));
  cpu::pack(tensors, {1993, threshold}, scalars.step, {packed, places, length, wire});
  require((length > 0) == (threshold > 0), "places of nothing, or none of something");
  cpu::with_dtype(wire, [&](auto* type) {
    const auto* const values = static_cast<decltype(type)>(packed);
    for (int64_t at = 0; at < length; ++at)
      require(static_cast<float>(values[at]) != 7, "pack left a place between the kept entries");
  });
  return memory.bits();
}

// Layers of few and of many tokens, with features that are needed side by side and far apart.
Bits sampled_weight_grad(uint32_t threshold) {
  Random random;
  Memory memory;
  std::vector<LinearTensor> tensors;
  for (const auto& [tokens, outputs, inputs] :
       {std::array<int64_t, 3>{1, 33, 20}, {130, 60, 70}, {65, 1, 5000}, {0, 3, 4}}) {
    for (const Dtype dtype : kDtypes) {
      for (const bool whole : {false, true}) {
        const std::vector<int32_t> index = whole ? std::vector<int32_t>{} : random.positions(outputs * inputs);
        LinearTensor tensor{};
        tensor.grad_output = memory.hold_as(dtype, random.numbers(tokens * outputs));
        tensor.input = memory.hold_as(dtype, random.numbers(tokens * inputs));
        tensor.index = memory.hold(index);
        tensor.selected = whole ? outputs * inputs : static_cast<int64_t>(index.size());
        tensor.tokens = tokens, tensor.outputs = outputs, tensor.inputs = inputs, tensor.dtype = dtype;
        tensors.push_back(tensor);
      }
    }
  }
  const Scalars scalars;
  const int64_t* const places = memory.hold(place(tensors, threshold, scalars.step));
  const int64_t length = places[piece_count(tensors)];
  float* const packed = memory.hold(random.numbers(length));
  cpu::sampled_weight_grad(tensors, {1993, threshold}, scalars.step, packed, places);
  require((length > 0) == (threshold > 0), "places of nothing, or none of something");
  return memory.bits();
}

// Whether select samples this entry to guess at the k-th largest, as test_select.py has it.
bool sampled(int64_t at, int64_t size) {
  if (size <= 1024) return false;
  const auto runs = static_cast<int64_t>(std::sqrt(static_cast<double>(size)) / 2);
  const int64_t stride = size / runs;
  const uint64_t spread = static_cast<uint32_t>(at / stride) * 0x9E3779B9u;
  const auto shift = static_cast<int64_t>(spread * static_cast<uint64_t>(stride - 3) >> 32);
  return at / stride < runs && at % stride >= shift && at % stride < shift + 4;
}

std::vector<std::vector<float>> layouts(int64_t size, Random& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<std::vector<float>> all(6, random.numbers(size));
  for (int64_t n = 0; n < size; ++n) {
    const auto at = static_cast<size_t>(n);
    all[1][at] = 0.25f;                                                          // nothing but ties
    all[2][at] = std::floor(all[0][at] * 3);                                     // many ties
    all[3][at] += sampled(n, size) ? 2.0f : 0.0f;                                // the sample shows too much
    all[4][at] -= sampled(n, size) ? 2.0f : 0.0f;                                // and too little
    all[5][at] = all[0][at] < 0 ? -kInfinity : (all[0][at] < 0.5f ? 0 : -0.0f);  // ties at a bound, both zeros
  }
  return all;
}

// Whether the positions ascend, what they leave is no larger, and of what is as large they have the lowest.
bool is_selection(const SelectTensor& tensor, const int32_t* index) {
  float kth = std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < tensor.k; ++j) {
    if (index[j] < 0 || index[j] >= tensor.size || (j > 0 && index[j] <= index[j - 1])) return false;
    kth = std::min(kth, tensor.score[index[j]]);
  }
  bool left_tie = tensor.k == 0;
  for (int64_t at = 0, j = 0; at < tensor.size; ++at) {
    const bool chosen = j < tensor.k && index[j] == at;
    j += chosen;
    if (chosen ? left_tie && tensor.score[at] == kth : tensor.score[at] > kth) return false;
    left_tie |= !chosen && tensor.score[at] == kth;
  }
  return true;
}

Bits select() {
  Random random;
  Memory memory;
  std::vector<SelectTensor> tensors;
  std::vector<int32_t*> index;
  for (const int64_t size : {0, 1, 15, 16, 1025, 33000, 70001}) {
    for (const std::vector<float>& layout : layouts(size, random)) {
      const float* const score = memory.hold(layout);
      for (const int64_t k : {int64_t{0}, size / 20, size - size / 3}) {
        tensors.push_back({score, size, k});
        index.push_back(memory.hold(std::vector<int32_t>(static_cast<size_t>(k), -1)));
      }
    }
  }
  require(cpu::select(tensors, index).tensor == -1, "select found a NaN that is not there");
  for (size_t t = 0; t < tensors.size(); ++t) require(is_selection(tensors[t], index[t]), "select chose wrongly");
  return memory.bits();
}

Bits select_finds_nan() {
  constexpr int64_t kSize = 33000;  // three pieces
  for (const int64_t at : {int64_t{0}, int64_t{16383}, int64_t{16384}, kSize - 2}) {
    for (const int64_t k : {int64_t{0}, kSize / 20, kSize}) {
      Random random;
      Memory memory;
      const std::vector<float> score = random.numbers(kSize);
      std::vector<float> broken = score;
      broken[static_cast<size_t>(at)] = broken.back() = std::numeric_limits<float>::quiet_NaN();
      std::vector<SelectTensor> tensors;
      std::vector<int32_t*> index;
      for (const std::vector<float>& values : {score, broken, broken}) {
        tensors.push_back({memory.hold(values), kSize, k});
        index.push_back(memory.hold(std::vector<int32_t>(static_cast<size_t>(k))));
      }
      const cpu::Nan nan = cpu::select(tensors, index);
      require(nan.tensor == 1 && nan.entry == at, "select did not name the first NaN");
    }
  }
  return {};
}

// Bytes of entries that are written, and of what is there: of both replacements, whose positions overlap.
Bits write_values(int64_t wrong) {
  Random random;
  Memory memory;
  std::vector<WriteTensor> tensors;
  for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{300}, int64_t{65537}}) {
    for (const size_t itemsize : {1u, 2u, 4u, 8u}) {
      std::vector<uint8_t> now = random.integers<uint8_t>(size * static_cast<int64_t>(itemsize), 256);
      WriteTensor tensor{memory.hold(now), size, itemsize, {}, {}};
      for (Replacement* made : {&tensor.first, &tensor.then}) {
        const bool whole = made == &tensor.first && itemsize == 2;
        std::vector<int32_t> index = random.positions(size);
        made->selected = whole ? size : static_cast<int64_t>(index.size());
        const std::vector<uint8_t> value =
            random.integers<uint8_t>(made->selected * static_cast<int64_t>(itemsize), 256);
        std::vector<uint8_t> expected(value.size());
        for (int64_t j = 0; j < made->selected; ++j) {
          const auto at = static_cast<size_t>(whole ? j : index[static_cast<size_t>(j)]) * itemsize;
          const auto from = static_cast<size_t>(j) * itemsize;
          std::memcpy(&expected[from], &now[at], itemsize);
          std::memcpy(&now[at], &value[from], itemsize);
        }
        if (wrong == static_cast<int64_t>(tensors.size()) && made == &tensor.then) expected.back() ^= 1;
        made->index = whole ? nullptr : memory.hold(index);
        made->value = memory.hold(value);
        made->expected = memory.hold(expected);
      }
      tensors.push_back(tensor);
    }
  }
  const Bits before = memory.bits();
  require(cpu::find_descending(tensors) == -1, "find_descending found what ascends");
  const Mismatch found = cpu::write_values(tensors);
  require(found.tensor == wrong, "write_values found other bits elsewhere");
  require((memory.bits() == before) == (wrong >= 0), "write_values wrote all or nothing where it should not");
  return memory.bits();
}

Bits gaps() {
  Random random;
  Memory memory;
  for (const uint32_t bound : {2u, 300u, 100000u}) {
    std::vector<int32_t> index;
    for (int32_t at = static_cast<int32_t>(random.below(bound)); index.size() < 3000;
         at += 1 + static_cast<int32_t>(random.below(bound)))
      index.push_back(at);
    const auto count = static_cast<int64_t>(index.size());
    const int64_t escapes = cpu::count_escapes(memory.hold(index), count);
    require(escapes >= 0, "count_escapes found what ascends");
    const int64_t bytes = count + 4 * escapes;
    uint8_t* const code = memory.hold(std::vector<uint8_t>(static_cast<size_t>(bytes)));
    cpu::encode_gaps(index.data(), count, escapes, code);
    int32_t* const decoded = memory.hold(std::vector<int32_t>(index.size()));
    require(cpu::decode_gaps(code, bytes, count, index.back() + 1, decoded) == GapFault::none, "decode_gaps failed");
    require(std::equal(index.begin(), index.end(), decoded), "decode_gaps made other positions");
    for (int64_t at = 0; at < bytes; at += 7) {  // of any bytes nothing is read or written outside
      code[at] = static_cast<uint8_t>(random.below(256));
      cpu::decode_gaps(code, bytes, count, index.back() + 1, decoded);
    }
  }
  return memory.bits();
}

struct Case {
  const char* name;
  std::function<Bits()> run;
};

const std::vector<Case> kCases = {
    {"accumulate", accumulate},
    {"drop_apply<Sgd>", [] { return sgd(kTenth); }},
    {"drop_apply<Sgd>, nothing kept", [] { return sgd(0); }},
    {"drop_apply<Sgd>, all kept", [] { return sgd(65536); }},
    {"drop_apply<Sgd>, without momentum", sgd_without_momentum},
    {"drop_apply<AdamW>", [] { return adamw(kTenth); }},
    {"drop_apply<AdamW>, all kept", [] { return adamw(65536); }},
    {"drop_apply<Sgd>, packed", [] { return sgd(kTenth, Source::float32); }},
    {"drop_apply<Sgd>, packed, all kept", [] { return sgd(65536, Source::bfloat16); }},
    {"drop_apply<AdamW>, packed", [] { return adamw(kTenth, Source::bfloat16); }},
    {"pack", [] { return pack(kTenth, Dtype::float32); }},
    {"pack, nothing kept", [] { return pack(0, Dtype::float32); }},
    {"pack, all kept", [] { return pack(65536, Dtype::bfloat16); }},
    {"sampled_weight_grad", [] { return sampled_weight_grad(kTenth); }},
    {"sampled_weight_grad, nothing kept", [] { return sampled_weight_grad(0); }},
    {"sampled_weight_grad, all kept", [] { return sampled_weight_grad(65536); }},
    {"mask", [] { return mask(kTenth); }},
    {"mask, nothing kept", [] { return mask(0); }},
    {"mask, all kept", [] { return mask(65536); }},
    {"write_values", [] { return write_values(-1); }},
    {"write_values, other bits", [] { return write_values(15); }},
    {"encode_gaps and decode_gaps", gaps},
    {"select", select},
    {"select, NaN", select_finds_nan},
};

void check(const Case& which, const Bits& expected, const std::string& where) {
  require(which.run() == expected, std::string(which.name) + ": other bits " + where);
}

void run_each(const std::vector<Bits>& expected) {
  for (const std::string& set : cpu::instruction_sets()) {
    cpu::use_instruction_set(set);
    for (size_t c = 0; c < kCases.size(); ++c) {
      for (const int64_t count : {1, 2, 8}) {  // select has lists of fewer than 8 tensors
        threads = count;
        check(kCases[c], expected[c], "on " + set + " with " + std::to_string(count) + " threads");
      }
    }
  }
}

void run_together(const std::vector<Bits>& expected) {
  std::vector<std::thread> callers;
  std::atomic<size_t> running = 0;
  for (size_t c = 0; c < kCases.size(); ++c) {
    ++running;
    callers.emplace_back([&, c] {
      threads = 1 + static_cast<int64_t>(c % 3);
      for (int call = 0; call < 2; ++call) check(kCases[c], expected[c], "beside other callers");
      --running;
    });
  }
  while (running > 0) {
    for (const std::string& set : cpu::instruction_sets()) cpu::use_instruction_set(set);
    std::this_thread::yield();
  }
  for (std::thread& caller : callers) caller.join();
}

// A fault for each sanitizer.
void commit(const std::string& fault) {
  std::vector<float> score(1 << 16), grad(1 << 16);
  AccumulateTensor tensor{score.data(), grad.data(), nullptr, 1 << 16, Dtype::float32};
  if (fault == "race") {
    threads = 2;
    overlap = 1;
  } else if (fault == "overflow") {
    ++tensor.size;
  } else if (fault == "misaligned") {
    tensor.score = reinterpret_cast<float*>(reinterpret_cast<char*>(score.data()) + 1);
    tensor.size = 100;
  } else {
    require(false, "there is no fault named " + fault);
  }
  cpu::accumulate({tensor}, 1);
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && arguments[1] == std::string("instruction_sets")) {
    for (const std::string& set : cpu::instruction_sets()) std::printf("%s\n", set.c_str());
    return 0;
  }
  if (count == 3) {
    cpu::use_instruction_set(arguments[2]);
    commit(arguments[1]);
    return 0;
  }
  cpu::use_instruction_set("plain");
  std::vector<Bits> expected;
  for (const Case& each : kCases) expected.push_back(each.run());
  run_each(expected);
  run_together(expected);
}
