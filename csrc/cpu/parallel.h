// The only thing that the loops need of their surroundings. Torch's threads serve it (parallel.cpp); a check of the
// loops without torch brings its own.
#pragma once

#include <cstdint>
#include <functional>

namespace mist::cpu {

// Calls body(begin, end) for consecutive parts of [0, count), on several threads, and waits for all of them. A part has
// at least `grain` numbers, if there are as many.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace mist::cpu
