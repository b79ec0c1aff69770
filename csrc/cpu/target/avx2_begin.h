// From here to target/end.h functions are compiled for AVX2. No other header may be included in between, so that
// nothing that an older machine also runs ends up compiled for a newer one.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#pragma GCC diagnostic push
#endif
