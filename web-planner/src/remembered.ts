// What was worked out last, for as long as what it hangs on stays. While one slider moves, most of a plan does.

const last = new Map<string, { key: string; value: unknown }>();

/** The last value under a name if its key is still the same, else a new one. */
export function remembered<T>(name: string, key: readonly unknown[], make: () => T): T {
  const now = JSON.stringify(key);
  const before = last.get(name);
  if (before?.key === now) return before.value as T;
  const value = make();
  last.set(name, { key: now, value });
  return value;
}
