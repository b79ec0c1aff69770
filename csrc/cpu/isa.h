// Which of the instruction sets that a kernel is compiled for is used. Chosen at run time, so that one build runs on
// any machine; every choice gives the same bits.
#pragma once

#include <string>
#include <vector>

namespace mist::cpu {

// One function of a kernel, compiled for each instruction set. Those that this compiler has not are null.
template <class Function>
struct Variants {
  Function plain;  // what every machine of the architecture has: SSE2 on x86-64, NEON on arm64
  Function avx2;
  Function avx512;

  Function chosen() const;
};

enum class Isa { plain, avx2, avx512 };
Isa isa();

template <class Function>
Function Variants<Function>::chosen() const {
  switch (isa()) {
    case Isa::avx512: return avx512;
    case Isa::avx2: return avx2;
    default: return plain;
  }
}

// The instruction set in use, those this machine can run, widest first, and the choice among them. Choosing one that
// cannot run throws std::invalid_argument.
std::string instruction_set();
std::vector<std::string> instruction_sets();
void use_instruction_set(const std::string& name);

}  // namespace mist::cpu
