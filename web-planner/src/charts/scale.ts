import { ticks } from "d3-array";

/** From values to pixels. */
export interface Scale {
  (value: number): number;
  readonly ticks: readonly number[];
}

/** A straight scale whose ends are the given ones. */
export function linear(low: number, high: number, from: number, to: number, about: number): Scale {
  const span = high - low || 1;
  const place = (value: number) => from + ((value - low) / span) * (to - from);
  return Object.assign(place, { ticks: ticks(low, high, Math.max(1, about)) });
}

/** The largest value, as the end of an axis: the next tick above it. */
export function upTo(largest: number, about: number): number {
  const [first = 0, second = 1] = ticks(0, largest || 1, about);
  const step = second - first || 1;
  return Math.ceil((largest || 1) / step) * step;
}
