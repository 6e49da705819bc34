# What was built; cuda.cmake writes the module.
CUDA: bool
PROBLEM: str  # why CUDA is False
NVCC: str  # its version
ARCHITECTURES: str  # "80 90+PTX"
