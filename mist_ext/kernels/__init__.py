"""The ops on lists of tensors: compiled for CPU and CUDA, and in plain PyTorch, which they are compared with."""
