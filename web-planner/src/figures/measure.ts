// In what a cost is drawn.

import type { Band, Cost } from "planner";

import * as format from "../format.ts";
import type { Picture } from "../picture.ts";

export interface Measure {
  name: string;
  of: (cost: Cost) => Band;
  show: (value: number) => string;
}

const exactly = (value: number): Band => ({ low: value, likely: value, high: value });

export const MEASURES = {
  steps: { name: "steps", of: ({ steps }) => exactly(steps), show: format.short },
  tokens: { name: "tokens", of: ({ tokens }) => exactly(tokens), show: format.short },
  flops: { name: "FLOPs", of: ({ flops }) => exactly(flops), show: format.digits },
  device_hours: { name: "device-hours", of: (cost) => cost.device_hours, show: format.digits },
  money: { name: "dollars", of: ({ money }) => money, show: format.dollars },
  energy: { name: "kWh", of: ({ energy }) => energy, show: format.digits },
  carbon: { name: "kg CO₂", of: ({ carbon }) => carbon, show: format.digits },
} satisfies Record<string, Measure>;

/** What is asked for, or device-hours where nothing is known of it. */
export function measure({ scenario, known }: Picture): Measure {
  const asked = scenario.measure;
  const isUnknown = (asked === "money" && !known.money) || ((asked === "energy" || asked === "carbon") && !known.energy);
  return MEASURES[isUnknown ? "device_hours" : asked];
}

/** Costs are proportional to steps, so those of one way give that of any number of steps. */
export function ofOneStep(picture: Picture): Band {
  const { cost, steps } = picture.ways["path-switching"];
  const { low, likely, high } = measure(picture).of(cost);
  return { low: low / steps, likely: likely / steps, high: high / steps };
}

export function ranged(band: Band, show: (value: number) => string): string {
  return band.low === band.high ? show(band.likely) : `${show(band.likely)} (${show(band.low)} to ${show(band.high)})`;
}
