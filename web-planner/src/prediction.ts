// Losses that a law predicts, worked out piece by piece while nothing else is to be done: a law walks over every step.

import type { Point } from "planner";

import { alphaPoints, checkWarmup, losses } from "./core.ts";
import type { Picture } from "./picture.ts";

export interface Predicted {
  /** What it belongs to. */
  key: string;
  points: readonly Point[];
  /** Of the last version. */
  fromScratch: number | undefined;
  continual: number | undefined;
  isWhole: boolean;
  /** Why the law says nothing. */
  refusal: string | undefined;
}

const ALPHAS = Array.from({ length: 20 }, (_, place) => (place + 1) / 20);
const AFTER_MS = 120;

export class Prediction {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #found: Predicted | undefined;

  constructor(private readonly changed: () => void) {}

  /** What is known of it so far; the rest is begun. */
  of(picture: Picture): Predicted | undefined {
    if (!picture.law) {
      clearTimeout(this.#timer);
      return (this.#found = undefined);
    }
    const key = JSON.stringify([picture.sizes, picture.settings, picture.law, picture.scenario.alpha]);
    if (this.#found?.key !== key) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#begin(picture, key), AFTER_MS);
    }
    return this.#found;
  }

  #begin(picture: Picture, key: string): void {
    const found: Predicted = { key, points: [], fromScratch: undefined, continual: undefined, isWhole: false, refusal: undefined };
    const alphas = ALPHAS.filter((alpha) => isPossible(picture, alpha));
    const pieces: (() => Partial<Predicted>)[] = [
      () => ({ fromScratch: lastLoss(picture, "from-scratch"), continual: lastLoss(picture, "continual") }),
      ...alphas.map((alpha) => () => ({
        points: [...(this.#found?.points ?? []), ...alphaPoints([...picture.sizes], picture.settings, picture.law, [alpha])],
      })),
      () => ({ isWhole: true }),
    ];
    this.#found = found;
    const next = () => {
      const piece = pieces.shift();
      if (!piece || !this.#found) return;
      try {
        this.#found = { ...this.#found, ...piece() };
      } catch (error) {
        this.#found = { ...found, isWhole: true, refusal: error instanceof Error ? error.message : String(error) };
        return this.changed();
      }
      if (this.#found.isWhole) return this.changed();
      this.#timer = setTimeout(next);
    };
    next();
  }
}

/** The main path's warm-up must be over at the first branch point. */
function isPossible({ sizes, settings }: Picture, alpha: number): boolean {
  try {
    checkWarmup([...sizes], alpha, settings);
    return true;
  } catch {
    return false;
  }
}

function lastLoss({ sizes, settings, law, scenario }: Picture, paradigm: "from-scratch" | "continual"): number | undefined {
  if (!law) return undefined;
  const way = { paradigm, increments: [...sizes], alpha: scenario.alpha, version: sizes.length };
  const last = sizes.reduce((sum, size) => sum + size, 0) - 1;
  return losses(law, way, settings, [last])[0];
}
