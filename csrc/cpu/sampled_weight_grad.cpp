// sampled_weight_grad_: the kept entries of linear layers' weight gradients, a sum over the tokens each.
//
// Threads take tiles of tokens of a group of entries in turn. A tile's operands are copied so that a feature's tokens
// lie side by side, the columns' into a panel that stays in the thread's cache, the rows', which entries need one after
// the other, a few at a time. Each task leaves its sums in memory of its own, and those of an entry are then added in
// the order of the tiles, so that no number depends on the threads.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "kernels.h"
#include "parallel.h"
#include "sampled_group.h"

namespace mist::cpu {
namespace {

constexpr int32_t kRowBlock = 16 * kPanelFeatures;  // rows in the panel at a time: half of a small first-level cache
constexpr int64_t kListed = 1 << 18;                // entries of groups that are listed at a time, unless one has more
constexpr int64_t kSums = 1 << 19;                  // sums of tiles that are kept at a time, unless one has more: 2 MB
constexpr int64_t kAdded = 4096;                    // entries whose tiles a thread adds up

struct Panel {
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };
  static constexpr std::align_val_t kAlignment{64};

  explicit Panel(int64_t slots) {
    const int64_t whole = (slots + kPanelFeatures - 1) / kPanelFeatures * kPanelFeatures;
    const auto bytes = static_cast<size_t>(whole * kTokenTile) * sizeof(float);
    values.reset(static_cast<float*>(::operator new(bytes, kAlignment)));
  }

  std::unique_ptr<float, Free> values;
};

// A tile of tokens of a group.
struct Task {
  const EntryGroup* group;
  int64_t tile;
  float* sums;  // room for one an entry
};

TokenTile token_tile(const void* matrix, int64_t width, const LinearTensor& tensor, int64_t tile) {
  const int64_t first = tile * kTokenTile;
  const auto* const bytes = static_cast<const char*>(matrix);
  const int64_t tokens = std::min<int64_t>(kTokenTile, tensor.tokens - first);
  return {bytes + first * width * static_cast<int64_t>(itemsize(tensor.dtype)), width, static_cast<int>(tokens),
          tensor.dtype};
}

void work(const Task& task, Panel& rows, Panel& columns) {
  const EntryGroup& group = *task.group;
  const LinearTensor& tensor = *group.tensor;
  const TokenTile inputs = token_tile(tensor.input, tensor.inputs, tensor, task.tile);
  const TokenTile outputs = token_tile(tensor.grad_output, tensor.outputs, tensor, task.tile);
  fill_panel(inputs, group.columns.of_slots(), group.columns.slots(), columns.values.get());
  for (int64_t begin = 0, end; begin < group.count; begin = end) {
    const int32_t first = group.entries[begin].row / kRowBlock * kRowBlock;
    for (end = begin + 1; end < group.count && group.entries[end].row / kRowBlock * kRowBlock == first;) ++end;
    const int64_t filled = std::min<int64_t>(kRowBlock, group.rows.slots() - first);
    fill_panel(outputs, group.rows.of_slots() + first, filled, rows.values.get());
    sum_products(group.entries.data() + begin, end - begin, rows.values.get(), first, columns.values.get(),
                 outputs.lanes_of_tokens(), task.sums + begin);
  }
}

// Each thread takes the next tile when it is done with one: groups differ in how long theirs take.
void work_on(const std::vector<Task>& tasks) {
  const auto count = static_cast<int64_t>(tasks.size());
  int64_t slots = 0;
  for (const Task& task : tasks) slots = std::max(slots, task.group->columns.slots());
  std::atomic<int64_t> next{0};
  parallel_for(count, 1, [&](int64_t, int64_t) {
    int64_t k = next.fetch_add(1, std::memory_order_relaxed);
    if (k >= count) return;
    Panel rows(kRowBlock), columns(slots);
    for (; k < count; k = next.fetch_add(1, std::memory_order_relaxed))
      work(tasks[static_cast<size_t>(k)], rows, columns);
  });
}

// Adds the sums to the packed values, tile by tile.
void add_up(const std::vector<Task>& tasks, float* values) {
  struct Part {
    size_t first, last;  // the tasks of one group
    int64_t begin, end;
  };
  std::vector<Part> parts;
  for (size_t first = 0, last; first < tasks.size(); first = last) {
    const EntryGroup* const group = tasks[first].group;
    for (last = first + 1; last < tasks.size() && tasks[last].group == group;) ++last;
    for (int64_t begin = 0; begin < group->count; begin += kAdded)
      parts.push_back({first, last, begin, std::min(begin + kAdded, group->count)});
  }
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const Part& part = parts[p];
      float* const to = values + tasks[part.first].group->place;
      for (size_t k = part.first; k < part.last; ++k) {
        const float* const sums = tasks[k].sums;
        for (int64_t entry = part.begin; entry < part.end; ++entry) to[entry] += sums[entry];
      }
    }
  });
}

}  // namespace

void sampled_weight_grad(const std::vector<LinearTensor>& tensors, const Draw& draw, int64_t step, float* values,
                         const int64_t* places) {
  std::vector<EntryGroup> groups = entry_groups(tensors, places);
  std::unique_ptr<float[]> sums;
  int64_t room = 0;
  for (size_t first = 0, last; first < groups.size(); first = last) {
    int64_t listed = groups[first].count;
    for (last = first + 1; last < groups.size() && (listed += groups[last].count) <= kListed;) ++last;
    parallel_for(static_cast<int64_t>(last - first), 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) groups[first + static_cast<size_t>(k)].list(draw, step);
    });
    std::vector<Task> tasks;
    int64_t used = 0;
    const auto finish = [&] {
      if (room < used) sums = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(room = used));
      int64_t at = 0;
      for (Task& task : tasks) {
        task.sums = sums.get() + at;
        at += task.group->count;
      }
      work_on(tasks);
      add_up(tasks, values);
      tasks.clear();
      used = 0;
    };
    for (size_t g = first; g < last; ++g) {
      for (int64_t tile = 0; tile < token_tiles(groups[g].tensor->tokens); ++tile) {
        if (used > 0 && used + groups[g].count > kSums) finish();
        tasks.push_back({&groups[g], tile, nullptr});
        used += groups[g].count;
      }
    }
    finish();
    for (size_t g = first; g < last; ++g) groups[g] = {};
  }
}

}  // namespace mist::cpu
