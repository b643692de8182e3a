/* NVIDIA's driver with nothing behind it, for machines without one: the calls that a program makes before it uses a GPU.
 * $LRPATH_PRETENDED_CUDA says what it is like: its version, what starting it answers, and how many GPUs it has. */
#include <stdio.h>
#include <stdlib.h>

static int version = 13000, started, gpus;

__attribute__((constructor)) static void read_world(void) {
  const char *world = getenv("LRPATH_PRETENDED_CUDA");
  if (world) sscanf(world, "%d %d %d", &version, &started, &gpus);
}

int cuDriverGetVersion(int *answer) {
  *answer = version;
  return 0;
}

int cuInit(unsigned flags) {
  (void)flags;
  return started;
}

int cuDeviceGetCount(int *answer) {
  *answer = gpus;
  return 0;
}
