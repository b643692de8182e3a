// All kernels, as one module.
#include "attention.cu"
#include "embedding.cu"
#include "loss.cu"
#include "norm.cu"
#include "parameters.cu"
#include "rope.cu"
#include "swiglu.cu"
#include "tensor_core_attention.cu"
