// The keep rule over whole runs of groups, on the widest instruction set the machine has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../philox.h"

namespace mist::cpu {

// Writes keep_byte(rule, group) for `count` groups from `first` on. The same bytes on every instruction set.
void keep_bytes(const KeepRule& rule, uint32_t first, int64_t count, uint8_t* bytes);

// The instruction set in use ("avx512", "avx2" or "plain"), those this machine can run, widest first, and the choice
// among them. Choosing one that cannot run throws std::invalid_argument.
std::string instruction_set();
std::vector<std::string> instruction_sets();
void use_instruction_set(const std::string& name);

// Positions of the kept entries among entries [begin, end) of the tensor's selection; begin is a multiple of kGroup.
// `positions` holds end - begin at least. Returns how many there are.
int kept_positions(const KeepRule& rule, int64_t begin, int64_t end, int32_t* positions);

}  // namespace mist::cpu
