// Marks what host and device share.
#pragma once

#if defined(__CUDACC__)
#define MIST_HOST_DEVICE __host__ __device__
#else
#define MIST_HOST_DEVICE
#endif
