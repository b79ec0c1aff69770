// Gives the CUDA object an importable name; its registrations run when it is loaded. Plain CPython: pybind11's headers
// would take as long to compile as a kernel.
#include <Python.h>

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_cuda", .m_doc = "CUDA kernels of mist_ext", .m_size = -1};

PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&definition); }
