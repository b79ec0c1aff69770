// What host and device share, on the host: how tensors are cut into chunks, how the k-th largest score is searched
// digit by digit, and each rule for an entry. `pytest tests/test_device_logic.py` builds and runs it.
//   logic NAME    one of the cases below; says what is wrong and exits with 1 where something is
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/chunks.h"
#include "cuda/radix.h"
#include "cuda/sampled_plan.h"
#include "rules.h"
#include "tensors.h"

namespace {

using namespace mist;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("%s\n", what.c_str());
  std::exit(1);
}

// Chunks

// As large as a kernel's own, of which the packer knows the number of entries alone.
template <class Tensor>
struct Sized {
  int64_t entries;
  uint32_t first;
  uint32_t number;
  char rest[sizeof(Tensor) - sizeof(int64_t) - 2 * sizeof(uint32_t)];
};

template <class Tensor, int kEntries>
struct Body {
  using Item = Sized<Tensor>;
  static constexpr int kChunk = kEntries;
  char
      members[sizeof(Draw) + sizeof(DeviceScalars) + sizeof(AdamW::Options) + sizeof(Packed)];  // the most that one has

  static Range positions(const Item& item) { return {item.first, item.first + item.entries}; }
};

using Accumulated = Body<AccumulateTensor, 4096>;
using Masked = Body<MaskTensor, 1 << 14>;
using UpdatedSgd = Body<SgdTensor, 2048>;
using UpdatedAdamW = Body<AdamWTensor, 2048>;
using Packing = Body<PackTensor, 2048>;
using Single = Body<AccumulateTensor, 1>;  // every entry is a chunk

// Goes through the blocks of every launch as the device does; returns the number of launches. Whatever the sizes, the
// chunks of a tensor must follow each other from its first entry to its last, and the tensors each other, cut where
// positions are multiples of the chunk. `firsts` are the positions at which tensors begin, all 0 where there are none.
template <class Body>
int launches(const std::vector<int64_t>& sizes, bool every_block = true, const std::vector<uint32_t>& firsts = {}) {
  std::vector<typename Body::Item> items(sizes.size());
  for (size_t t = 0; t < sizes.size(); ++t)
    items[t].entries = sizes[t], items[t].number = static_cast<uint32_t>(t),
    items[t].first = firsts.empty() ? 0 : firsts[t];
  int count = 0;
  size_t tensor = 0;  // to be covered next, from position `entry` on
  int64_t entry = items.empty() ? 0 : items[0].first;
  const auto end = [&] { return Body::positions(items[tensor]).end; };
  const auto skip_covered = [&] {
    while (tensor < sizes.size() && entry == end()) {
      ++tensor;
      if (tensor < sizes.size()) entry = items[tensor].first;
    }
  };
  mist::cuda::for_each_batch<Body>(items, [&](const mist::cuda::Batch<Body>& batch) {
    ++count;
    require(sizeof(batch) + sizeof(Body) <= 32764, "a launch has more arguments than CUDA takes");
    require(batch.blocks() > 0 && batch.blocks() <= 2147483647u, "a launch has more blocks than CUDA takes, or none");
    const auto look = [&](uint32_t block) {
      const int number = batch.find(block);
      const Range chunk = batch.range(block, number);
      skip_covered();
      const std::string where = " in block " + std::to_string(block) + " of launch " + std::to_string(count);
      require(tensor < sizes.size(), "more chunks than entries" + where);
      require(number >= 0 && number < batch.count && batch.item[number].number == tensor, "another tensor" + where);
      require(chunk.begin == entry, "entries left out or covered twice" + where);
      require(chunk.end > chunk.begin && chunk.end - chunk.begin <= Body::kChunk, "a chunk of another size" + where);
      require(chunk.end <= end(), "entries beyond the tensor" + where);
      require(chunk.end == end() || chunk.end % Body::kChunk == 0, "a chunk that ends off the grid" + where);
      entry = chunk.end;
    };
    if (every_block) {
      for (uint32_t block = 0; block < batch.blocks(); ++block) look(block);
      return;
    }
    for (int number = 0; number < batch.count; ++number) {  // the first and last chunk of every tensor
      look(batch.begin(number));
      const uint32_t last = batch.end[number] - 1;
      if (last > batch.begin(number)) {
        entry =
            (batch.item[number].first / Body::kChunk + static_cast<int64_t>(last - batch.begin(number))) * Body::kChunk;
        look(last);
      }
    }
  });
  skip_covered();
  require(tensor == sizes.size(), "tensor " + std::to_string(tensor) + " was not covered to its end");
  return count;
}

template <class Body>
void check_chunks(const char* body) {
  using Batch = mist::cuda::Batch<Body>;
  const int64_t chunk = Body::kChunk;
  const auto expect = [&](const std::vector<int64_t>& sizes, int expected, const char* what) {
    const int made = launches<Body>(sizes);
    require(made == expected, std::string(body) + ": " + std::to_string(made) + " launches of " + what);
  };
  expect({}, 0, "nothing");
  expect({0, 0, 0}, 0, "empty tensors");
  expect({1}, 1, "one entry");
  expect({0, 1, 0, 0, chunk, 0, chunk + 1, chunk - 1, 0}, 1, "empty tensors among others");
  expect({chunk * 1000 + 1, 1, chunk * 1000}, 1, "large and small tensors");
  const size_t most = static_cast<size_t>(Batch::kCapacity);
  expect(std::vector<int64_t>(most, 1), 1, "as many tensors as there is room for");
  expect(std::vector<int64_t>(most + 1, 1), 2, "one tensor more");
  expect(std::vector<int64_t>(3 * most, 3), 3, "three times as many");
  std::vector<int64_t> mixed(most + 100, 5);
  for (size_t t = 0; t < mixed.size(); t += 2) mixed[t] = 0;
  expect(mixed, 1, "many tensors of which half are empty");
  std::mt19937 random;
  for (int round = 0; round < 50; ++round) {
    std::vector<int64_t> sizes(random() % 1500);
    for (int64_t& size : sizes) size = random() % 4 == 0 ? random() % 3 : random() % (3 * chunk);
    launches<Body>(sizes);
    std::vector<uint32_t> firsts(sizes.size());
    for (uint32_t& first : firsts) first = static_cast<uint32_t>(random() % (3 * chunk));
    launches<Body>(sizes, true, firsts);
  }
}

void chunks() {
  check_chunks<Accumulated>("accumulate_");
  check_chunks<Masked>("mask_");
  check_chunks<UpdatedSgd>("drop_apply_sgd_");
  check_chunks<UpdatedAdamW>("drop_apply_adamw_");
  check_chunks<Packing>("pack_");
}

// A chunk of a part of a list is a part of one of the list's chunks, and its number tells its place among the pieces.
void chunks_of_parts_lie_on_the_list_s_grid() {
  std::mt19937 random;
  for (int round = 0; round < 2000; ++round) {
    const int64_t begin = random() % 9000, size = random() % 9000;
    const Range part{begin, begin + size};
    SgdTensor tensor{};
    tensor.first = static_cast<uint32_t>(begin), tensor.selected = size, tensor.piece = 40;
    int64_t next = begin;
    for (int64_t number = 0; number < cells(part, kPlacePiece); ++number) {
      const Range chunk = cell(part, kPlacePiece, number);
      require(chunk.begin == next && chunk.end > chunk.begin, "chunks do not follow each other");
      require(chunk.begin / kPlacePiece == (chunk.end - 1) / kPlacePiece, "a chunk of two cells of the grid");
      require(tensor.piece_of(chunk.begin) == 40 + number, "the number of a piece is not its chunk's");
      next = chunk.end;
    }
    require(next == part.end, "a part is not covered to its end");
  }
  require(cells({2147481600, int64_t{1} << 31}, kPlacePiece) == 1, "the last piece of the longest list");
}

// The bits of each group of eight, of which a chunk's ends leave some out.
void ends_of_a_part_are_masked() {
  const KeepRule rule{7, 3, 2, 40000};
  for (const uint32_t base : {0u, 2048u, 2147483648u - 64}) {
    for (uint32_t begin = base; begin <= base + 24; ++begin) {
      for (uint32_t end = begin; end <= base + 24; ++end) {
        for (uint32_t group = base / kGroup; group < base / kGroup + 4; ++group) {
          uint32_t expected = 0;
          for (uint32_t i = 0; i < kGroup; ++i) {
            const uint32_t position = group * kGroup + i;
            if (position >= begin && position < end) expected |= keep_byte(rule, group) & 1u << i;
          }
          require(keep_byte_within(rule, group, begin, end) == expected, "another set of positions within a part");
        }
      }
    }
  }
}

void chunks_of_huge_tensors() {
  const int64_t huge = int64_t{5} << 31;  // more entries than 32 bits count
  require(launches<Masked>({1, huge, 0, huge + 1, 7}, false) == 1, "huge tensors: not one launch");
  require(launches<UpdatedSgd>({huge, huge - 1, huge}, false) == 1, "huge selections: not one launch");
  const int64_t half = (int64_t{1} << 30) + 1;  // two of them are more blocks than a launch has
  require(launches<Single>({half, half, 3, half}, false) == 3, "a launch has room for blocks of one tensor alone");
  require(launches<Single>({2147483647}, false) == 1, "as many blocks as there can be");
  require(launches<Single>({2147483646, 1}, false) == 1, "as many blocks as there can be, of two");
  require(launches<Single>({2147483646, 2}, false) == 2, "one block more");
}

// A vision transformer's tensors, without the classifier.
std::vector<int64_t> transformer(int64_t width, int depth, int64_t hidden, int64_t patch, int64_t tokens) {
  std::vector<int64_t> sizes = {width, tokens * width, 3 * patch * patch * width, width};
  for (int block = 0; block < depth; ++block)
    for (const int64_t size : {width, width, 3 * width * width, 3 * width, width * width, width, width, width,
                               hidden * width, hidden, width * hidden, width})
      sizes.push_back(size);
  sizes.insert(sizes.end(), {width, width});
  return sizes;
}

template <class Body>
void tell(const char* op, const std::vector<std::pair<const char*, std::vector<int64_t>>>& models) {
  using Batch = mist::cuda::Batch<Body>;
  std::printf("%-17s room for %3d tensors, %5zu bytes a launch:", op, Batch::kCapacity, sizeof(Batch) + sizeof(Body));
  for (const auto& [name, sizes] : models) std::printf("  %s %d", name, launches<Body>(sizes));
  std::printf("\n");
}

// How many launches a model takes. Prints them, and fails where the largest takes more than two.
void launches_of_a_model() {
  const std::vector<std::pair<const char*, std::vector<int64_t>>> models = {
      {"ViT-B", transformer(768, 12, 3072, 16, 197)},
      {"ViT-L", transformer(1024, 24, 4096, 16, 197)},
      {"ViT-H", transformer(1280, 32, 5120, 14, 257)},
      {"ViT-g", transformer(1408, 40, 6144, 14, 257)},
  };
  tell<Accumulated>("accumulate_", models);
  tell<UpdatedSgd>("drop_apply_sgd_", models);
  tell<UpdatedAdamW>("drop_apply_adamw_", models);
  tell<Masked>("mask_", models);
  tell<Packing>("pack_", models);
  for (const auto& [name, sizes] : models)
    require(launches<Accumulated>(sizes) == 1 && launches<Masked>(sizes) == 1 && launches<Packing>(sizes) == 1 &&
                launches<UpdatedSgd>(sizes) <= 2 && launches<UpdatedAdamW>(sizes) <= 2,
            std::string(name) + " takes more launches than it did");
  for (size_t model : {0, 1})
    require(launches<UpdatedSgd>(models[model].second) == 1 && launches<UpdatedAdamW>(models[model].second) == 1,
            std::string(models[model].first) + " takes more than one launch");
}

// Weight gradients of kept entries

// Goes through the blocks of all launches as the device does: each tile of each piece must be summed exactly once, and
// the piece's tiles must come in order.
void tiles_of_weight_gradients() {
  std::mt19937 random;
  for (const uint32_t threshold : {0u, 1u, 655u, 6554u, 65536u}) {
    const uint32_t group = mist::cuda::pieces_of_group(threshold);
    const int64_t kept = int64_t{group} * kPlacePiece * threshold / 65536;
    require(group >= 1 && (group == 1 || kept <= mist::cuda::kSampledEntries), "a group keeps more than a block has");
    for (int round = 0; round < 100; ++round) {
      LinearTensor tensor{};
      tensor.first = static_cast<uint32_t>(random() % 5000), tensor.selected = random() % 300000;
      tensor.tokens = random() % 700;
      const int64_t pieces = cells(tensor.positions(), kPlacePiece), tiles = token_tiles(tensor.tokens);
      const int64_t at_a_time = 1 + static_cast<int64_t>(random() % 12);
      std::vector<int64_t> next(static_cast<size_t>(pieces));  // tile of each piece
      for (int64_t first = 0; first < tiles; first += at_a_time) {
        const auto layer = mist::cuda::tiled(tensor, group, first, at_a_time);
        for (int64_t block = 0; block < layer.blocks(); ++block) {
          const int64_t begin = int64_t{layer.group_of(block)} * group, tile = layer.first_tile + layer.tile_of(block);
          require(begin < pieces, "a block of no piece");
          for (int64_t piece = begin; piece < std::min<int64_t>(begin + group, layer.pieces); ++piece)
            require(next[static_cast<size_t>(piece)]++ == tile, "a tile is left out, or summed twice");
        }
      }
      for (const int64_t done : next) require(done == tiles, "a piece lacks tiles");
    }
  }
}

void inputs_of_a_tile_are_staged() {
  using mist::cuda::staged_tokens;
  for (const size_t itemsize : {size_t{2}, size_t{4}}) {
    for (int64_t inputs = 1; inputs < 40000; inputs += 1 + inputs / 50) {
      const int tokens = staged_tokens(inputs, itemsize);
      require(static_cast<size_t>(tokens * inputs) * itemsize <= mist::cuda::kStagedBytes,
              "more than there is room for");
      require(tokens == kTokenLanes ||
                  static_cast<size_t>(std::max(2 * tokens, 1) * inputs) * itemsize > mist::cuda::kStagedBytes,
              "there is room for more");
      require((tokens & (tokens - 1)) == 0, "lanes are no whole number of stages");
    }
  }
  require(staged_tokens(768, 4) == 16 && staged_tokens(3072, 4) == 4 && staged_tokens(6144, 2) == 4, "other stages");
  require(mist::cuda::tiles_at_a_time(0) >= 1 && mist::cuda::tiles_at_a_time(int64_t{1} << 31) == 1, "no tile at all");
}

void order_of_lanes() {
  float lane[kTokenLanes];
  for (int l = 0; l < kTokenLanes; ++l) lane[l] = std::ldexp(1.0f, l);
  require(sum_of_lanes(lane) == 65535.0f, "lanes are left out");
  for (int l = 0; l < kTokenLanes; ++l) lane[l] = 0;
  lane[0] = 16777216, lane[8] = 1, lane[4] = 1, lane[12] = 1;  // 1 is lost where it is added alone
  require(sum_of_lanes(lane) == 16777218.0f, "lanes are added in another order");
}

// Radix select

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<float> special() {
  return {-kInfinity,
          -3e38f,
          -1,
          -from_bits(0x00800000),
          -from_bits(0x007FFFFF),
          -from_bits(1),
          -0.0f,
          0,
          from_bits(1),
          from_bits(0x007FFFFF),
          from_bits(0x00800000),
          1,
          std::nextafter(1.0f, 2.0f),
          3e38f,
          kInfinity};
}

void keys_order_like_scores() {
  std::mt19937 random;
  std::vector<float> scores = special();
  while (scores.size() < 3000)
    if (const float score = from_bits(static_cast<uint32_t>(random())); !std::isnan(score)) scores.push_back(score);
  for (const float a : scores) {
    require(radix::score(radix::key(a)) == a, "a score does not come back from its key");
    require(radix::key(a) > 0, "key 0 stands for no score");
    for (const float b : scores) {
      const bool same = (radix::key(a) < radix::key(b)) == (a < b) && (radix::key(a) == radix::key(b)) == (a == b);
      if (!same) require(false, "keys order otherwise than " + std::to_string(a) + " and " + std::to_string(b));
    }
  }
}

// As a block of threads does it: each stands for two digits, and the rank must fall to exactly one of them.
radix::Search kth_largest(const std::vector<float>& scores, int32_t rank) {
  radix::Search search{0, rank};
  for (int pass = 0; pass < radix::kPasses; ++pass) {
    std::vector<int32_t> histogram(radix::kBins);
    for (const float score : scores) {
      const uint32_t key = radix::key(score);
      if (search.shares(key, pass)) ++histogram[radix::Search::digit(key, pass)];
    }
    radix::Search narrowed{};
    int32_t above = 0;
    int found = 0;
    for (uint32_t digit = radix::kBins - 1; digit < radix::kBins; digit -= 2) {
      const int32_t here = histogram[digit], below = histogram[digit - 1];
      found += search.narrow(pass, digit, above, here, below, narrowed);
      above += here + below;
    }
    require(found == 1, "the rank falls to " + std::to_string(found) + " pairs of digits");
    search = narrowed;
  }
  return search;
}

// The k largest, ties by lowest position, as a stable sort has them.
void check_selection(const std::vector<float>& scores, int32_t k, const char* what) {
  std::vector<size_t> order(scores.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(k));
  std::sort(order.begin(), order.end());
  const radix::Search kth = kth_largest(scores, k);
  std::vector<size_t> selected;
  int32_t ties = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const uint32_t key = radix::key(scores[i]);
    if (key > kth.found || (key == kth.found && ties++ < kth.rank)) selected.push_back(i);
  }
  require(selected == order, std::string(what) + ": k = " + std::to_string(k) + " of " + std::to_string(scores.size()) +
                                 " are not those of a sort");
}

void digits_find_the_kth_largest() {
  std::mt19937 random;
  const auto draw = [&](size_t count, const std::function<float()>& one) {
    std::vector<float> scores(count);
    for (float& score : scores) score = one();
    return scores;
  };
  const auto uniform = [&] { return static_cast<float>(random() >> 8) / static_cast<float>(1 << 24); };
  const std::vector<std::pair<const char*, std::vector<float>>> all = {
      {"one", {2}},
      {"special values", special()},
      {"uniform", draw(4000, uniform)},
      {"over decades", draw(4000, [&] { return std::pow(uniform() - 0.5f, 9.0f); })},
      {"few values", draw(4000, [&] { return std::floor(4 * uniform()) - 2; })},
      {"nothing but ties", draw(500, [] { return 0.25f; })},
      {"both zeros", draw(500, [&] { return uniform() < 0.5f ? 0.0f : -0.0f; })},
      {"differing in the last bits", draw(3000, [&] { return from_bits(0x3F800000u + random() % 700); })},
      {"differing in the middle bits", draw(3000, [&] { return from_bits(0x3F800000u + (random() % 2000 << 10)); })},
      {"differing in the first bits",
       draw(2000, [&] { return from_bits((random() % 2040 << 21) % 0xFF800000u >> 1); })},
      {"around the digits' overlap", draw(2000, [&] { return from_bits(0x40000000u + (random() % 4 << 9)); })},
      {"subnormal", draw(2000, [&] { return from_bits(static_cast<uint32_t>(random()) & 0x807FFFFFu); })},
  };
  for (const auto& [what, scores] : all) {
    const auto size = static_cast<int32_t>(scores.size());
    for (const int32_t k : {1, 2, 3, size / 20, size / 2, size - 1, size})
      if (k >= 1 && k <= size) check_selection(scores, k, what);
  }
}

// Rules, against the formulas in double precision: every float operation may be off by half a unit in the last place.

constexpr double kUnit = 1.0 / (1 << 23);

void near(double actual, double expected, double magnitude, const char* what) {
  require(std::abs(actual - expected) <= 4 * kUnit * magnitude,
          std::string(what) + " is " + std::to_string(actual) + ", expected " + std::to_string(expected));
}

struct Entries {
  std::mt19937 random;
  double operator()(double low, double high) {
    return static_cast<float>(low + (high - low) * static_cast<double>(random()) / 4294967295.0);
  }
};

void rule_of_accumulate() {
  Entries entry;
  for (int n = 0; n < 1000; ++n) {
    const double score = entry(0, 3), grad = entry(-2, 2), scale = entry(0, 1);
    const double expected = score + scale * grad * grad;
    near(accumulated(static_cast<float>(score), static_cast<float>(grad), static_cast<float>(scale)), expected,
         expected, "score");
  }
  require(accumulated(1, 3, 0.5f) == 5.5f, "1 + 0.5 * 3 * 3 is not 5.5");
}

void rule_of_sgd() {
  Entries entry;
  for (int n = 0; n < 1000; ++n) {
    const double grad = entry(-2, 2), value = entry(-1, 1), before = entry(-3, 3);
    const double factor = entry(0, 1), decay = entry(0, 0.2), lr = entry(0, 0.5);
    for (const bool has_momentum : {false, true}) {
      float momentum[] = {7, static_cast<float>(before), 7};
      auto param = static_cast<float>(value);
      SgdTensor tensor{};
      tensor.momentum = has_momentum ? momentum : nullptr;
      const Sgd rule{{static_cast<float>(factor), static_cast<float>(decay)}, static_cast<float>(lr)};
      rule(tensor, 1, static_cast<float>(grad), param);
      const double step = (has_momentum ? factor * before : 0) + grad + decay * value;
      near(param, value - lr * step, std::abs(value) + lr * 6, "parameter");
      if (has_momentum) near(momentum[1], step, 6, "momentum");
      require(momentum[0] == 7 && momentum[2] == 7, "another entry's momentum was written");
      require(has_momentum || momentum[1] == static_cast<float>(before), "momentum was written where there is none");
    }
  }
}

void rule_of_adamw() {
  Entries entry;
  constexpr int kCorrections = 6;
  for (int n = 0; n < 1000; ++n) {
    const double beta1 = entry(0.5, 0.95), beta2 = entry(0.5, 0.99), eps = entry(1e-4, 1e-2);
    const double decay = entry(0, 0.2), lr = entry(0, 0.5), grad = entry(-2, 2), value = entry(-1, 1);
    const double average = entry(-2, 2), square = entry(0.5, 4);
    const int updates = n % (kCorrections + 2);  // beyond the table too
    std::vector<float> correction(2 * kCorrections);
    for (int m = 0; m < kCorrections; ++m) {
      correction[m] = static_cast<float>(1 - std::pow(beta1, m));
      correction[kCorrections + m] = static_cast<float>(std::sqrt(1 - std::pow(beta2, m)));
    }
    float averages[] = {7, static_cast<float>(average), 7}, squares[] = {7, static_cast<float>(square), 7};
    int32_t counts[] = {7, updates, 7};
    AdamWTensor tensor{};
    tensor.exp_avg = averages, tensor.exp_avg_sq = squares, tensor.updates = counts;
    const AdamW rule{{static_cast<float>(beta1), static_cast<float>(1 - beta1), static_cast<float>(beta2),
                      static_cast<float>(1 - beta2), static_cast<float>(eps), static_cast<float>(decay),
                      correction.data(), kCorrections},
                     static_cast<float>(lr)};
    auto param = static_cast<float>(value);
    rule(tensor, 1, static_cast<float>(grad), param);
    const int power = std::min(updates + 1, kCorrections - 1);  // beyond the table its last column stands
    const double new_average = beta1 * average + (1 - beta1) * grad;
    const double new_square = beta2 * square + (1 - beta2) * grad * grad;
    const double step = new_average / (1 - std::pow(beta1, power)) /
                        (std::sqrt(new_square) / std::sqrt(1 - std::pow(beta2, power)) + eps);
    near(averages[1], new_average, 4, "average of gradients");
    near(squares[1], new_square, 8, "average of squares");
    near(param, value * (1 - lr * decay) - lr * step, 1 + 20 * lr, "parameter");
    require(counts[1] == updates + 1, "the entry's updates were not counted");
    require(
        averages[0] == 7 && averages[2] == 7 && squares[0] == 7 && squares[2] == 7 && counts[0] == 7 && counts[2] == 7,
        "another entry's state was written");
  }
}

const std::vector<std::pair<std::string, void (*)()>> kCases = {
    {"chunks", chunks},
    {"chunks_of_parts_lie_on_the_list_s_grid", chunks_of_parts_lie_on_the_list_s_grid},
    {"ends_of_a_part_are_masked", ends_of_a_part_are_masked},
    {"chunks_of_huge_tensors", chunks_of_huge_tensors},
    {"launches_of_a_model", launches_of_a_model},
    {"tiles_of_weight_gradients", tiles_of_weight_gradients},
    {"inputs_of_a_tile_are_staged", inputs_of_a_tile_are_staged},
    {"order_of_lanes", order_of_lanes},
    {"keys_order_like_scores", keys_order_like_scores},
    {"digits_find_the_kth_largest", digits_find_the_kth_largest},
    {"rule_of_accumulate", rule_of_accumulate},
    {"rule_of_sgd", rule_of_sgd},
    {"rule_of_adamw", rule_of_adamw},
};

}  // namespace

int main(int count, char** arguments) {
  for (const auto& [name, check] : kCases) {
    if (count == 2 && name == arguments[1]) {
      check();
      return 0;
    }
  }
  for (const auto& [name, check] : kCases) std::printf("%s\n", name.c_str());
  return count == 1 ? 0 : 2;
}
