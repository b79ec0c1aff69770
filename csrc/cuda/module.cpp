// Gives the CUDA object an importable name; its registrations run when it is loaded.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_cuda, m) { m.doc() = "CUDA kernels of mist_ext"; }
