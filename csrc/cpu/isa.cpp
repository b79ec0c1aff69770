#include "isa.h"

#include <atomic>
#include <stdexcept>

namespace mist::cpu {
namespace {

struct Named {
  Isa isa;
  const char* name;
};

std::vector<Named> runnable() {
  std::vector<Named> sets;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) sets.push_back({Isa::avx512, "avx512"});
  if (__builtin_cpu_supports("avx2")) sets.push_back({Isa::avx2, "avx2"});
#endif
  sets.push_back({Isa::plain, "plain"});
  return sets;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> chosen = runnable().front().isa;
  return chosen;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_relaxed); }

std::string instruction_set() {
  for (const Named& set : runnable())
    if (set.isa == isa()) return set.name;
  return "";
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Named& set : runnable()) names.emplace_back(set.name);
  return names;
}

void use_instruction_set(const std::string& name) {
  std::string known;
  for (const Named& set : runnable()) {
    if (name == set.name) {
      current() = set.isa;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(set.name);
  }
  throw std::invalid_argument("instruction set '" + name + "' cannot run here; this machine runs: " + known);
}

}  // namespace mist::cpu
