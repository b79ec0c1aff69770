// Gives the CUDA object an importable name; its registrations run when it is loaded. Plain CPython: pybind11's headers
// would take as long to compile as a kernel.
#include <Python.h>

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cuda", "CUDA kernels of mist_ext", -1, nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&definition); }
