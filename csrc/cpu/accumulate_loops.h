// The loops of accumulate_: no header guard, since accumulate.cpp includes them once per instruction set, inside a
// namespace of its own, and the compiler vectorises them.

template <class Grad>
void add_squares(float* __restrict score, const Grad* __restrict grad, int64_t count, float scale) {
  for (int64_t k = 0; k < count; ++k) score[k] = accumulated(score[k], static_cast<float>(grad[k]), scale);
}

// Few entries are frozen (0.05 % a task), so most words of 64 bits are zero and their entries take the fast loop.
template <class Grad>
void add_unfrozen(float* score, const Grad* grad, const uint8_t* frozen, int64_t count, float scale) {
  for (int64_t at = 0; at < count; at += 64) {
    const int64_t entries = count - at < 64 ? count - at : 64;
    uint64_t bits = 0;
    std::memcpy(&bits, frozen + at / 8, static_cast<size_t>((entries + 7) / 8));
    if (bits == 0) {
      add_squares(score + at, grad + at, entries, scale);
      continue;
    }
    for (int64_t k = at; k < at + entries; ++k, bits >>= 1)
      if (!(bits & 1)) score[k] = accumulated(score[k], static_cast<float>(grad[k]), scale);
  }
}

inline void add(const AccumulateTensor& tensor, int64_t begin, int64_t end, float scale) {
  with_dtype(tensor.dtype, [&](auto* type) {
    const auto* grad = static_cast<const std::remove_pointer_t<decltype(type)>*>(tensor.grad) + begin;
    if (tensor.frozen) {
      add_unfrozen(tensor.score + begin, grad, tensor.frozen + begin / 8, end - begin, scale);
    } else {
      add_squares(tensor.score + begin, grad, end - begin, scale);
    }
  });
}
