// What cuDNN looks for in the driver before it makes a plan, and calls only where there is a GPU. With `gpus=0` its plans are
// made, and nothing of this is called.
#include <cstdio>
#include <cstdlib>

#include "gpu.h"

#define NEVER(name)                                                  \
    int name() {                                                     \
        fprintf(stderr, "emulated GPU: " #name " was called\n");      \
        abort();                                                     \
    }

extern "C" {
// The driver's own tables, which are nobody's business.
int cuGetExportTable(const void**, const void*) { return gpu::NOT_FOUND; }

NEVER(cuCtxGetLimit)
NEVER(cuCtxPopCurrent)
NEVER(cuCtxPushCurrent)
NEVER(cuKernelGetAttribute)
NEVER(cuKernelGetFunction)
NEVER(cuKernelSetAttribute)
NEVER(cuLaunchCooperativeKernel)
NEVER(cuLaunchKernelEx)
NEVER(cuLibraryGetKernel)
NEVER(cuLibraryLoadData)
NEVER(cuLibraryLoadFromFile)
NEVER(cuLibraryUnload)
NEVER(cuLinkAddData)
NEVER(cuLinkComplete)
NEVER(cuLinkCreate)
NEVER(cuLinkDestroy)
NEVER(cuOccupancyMaxPotentialClusterSize)
NEVER(cuStreamGetCtx)
NEVER(cuStreamGetGreenCtx)
NEVER(cuTensorMapEncodeIm2col)
NEVER(cuTensorMapEncodeTiled)
}
