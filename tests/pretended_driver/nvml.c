/* NVIDIA's management library with two GPUs that are not there, for machines without one: the calls, types and numbers of
 * nvml.h (CUDA 13) that the daemon uses. What becomes of them is the first letter of the file $LRPATH_PRETENDED_GPUS:
 *
 *   g  both answer                     l  the second has fallen off the bus
 *   h  the driver does not answer      u  the driver was unloaded
 *
 * A number after it is in their names, so that no two tests have the same GPUs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, WRONG_VERSION = 25 };

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static int initialized;

static unsigned number;

static char world(void) {
  const char *path = getenv("LRPATH_PRETENDED_GPUS");
  FILE *file = path ? fopen(path, "r") : NULL;
  char letter = 'g';
  if (file && fscanf(file, "%c%u", &letter, &number) < 1) letter = 'g';
  if (file) fclose(file);
  return letter;
}

static int asked(void) {
  while (world() == 'h') usleep(10000);
  if (world() == 'u') initialized = 0;
  return initialized ? SUCCESS : UNINITIALIZED;
}

static int asked_of(void *device) {
  int answer = asked();
  if (answer != SUCCESS) return answer;
  return device == (void *)2 && world() == 'l' ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (world() == 'u') return DRIVER_NOT_LOADED;
  initialized = 1;
  return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
  initialized = 0;
  return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  snprintf(version, length, "580.95.05");
  return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = 2;
  return asked();
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index > 1) return INVALID_ARGUMENT;
  *device = (void *)(size_t)(index + 1);
  return asked_of(*device);
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
  int answer = asked_of(device);
  snprintf(uuid, length, "GPU-%08u-0000-0000-0000-00000000000%zu", number, (size_t)device);
  return answer;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  snprintf(name, length, "Pretended GPU");
  return asked_of(device);
}

int nvmlDeviceGetMemoryInfo_v2(void *device, Memory *memory) {
  if (memory->version != (sizeof(Memory) | 2u << 24)) return WRONG_VERSION;
  memory->total = 80000000000ull;
  memory->reserved = 500000000ull;
  memory->used = 1500000000ull * (size_t)device;
  memory->free = memory->total - memory->reserved - memory->used;
  return asked_of(device);
}

/* The second is of a kind that does not count it. */
int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
  if (device == (void *)2) return asked_of(device) == SUCCESS ? NOT_SUPPORTED : asked_of(device);
  rates->gpu = 87;
  rates->memory = 40;
  return asked_of(device);
}
