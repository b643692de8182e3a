// In the place of cuRAND, where that is not installed: candle opens it with every GPU, to draw numbers that nothing here asks for.
int curandCreateGenerator(void **generator, int kind) {
  static int opened;
  (void)kind;
  *generator = &opened;
  return 0;
}

int curandDestroyGenerator(void *generator) {
  (void)generator;
  return 0;
}

int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) {
  (void)generator;
  (void)seed;
  return 0;
}

int curandSetStream(void *generator, void *stream) {
  (void)generator;
  (void)stream;
  return 0;
}
