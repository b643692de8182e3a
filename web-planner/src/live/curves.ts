// The curves of jobs: what was before the page was opened is asked for once, and the rest is heard.

import type { Curve, Job, Point } from "./api.ts";

/** Beyond so many points, every second one goes. */
const MOST_POINTS = 800;

export class Curves {
  readonly #known = new Map<number, Point[]>();
  readonly #asked = new Set<number>();

  constructor(
    private readonly ask: (job: number) => Promise<Curve | undefined>,
    private readonly changed: () => void,
  ) {}

  /** Points of a job, by step. */
  of(job: number): readonly Point[] {
    return this.#known.get(job) ?? [];
  }

  /** Takes what jobs say now, and forgets those that are over. */
  take(jobs: readonly Job[]): void {
    const running = new Set(jobs.map(({ job }) => job));
    for (const job of this.#known.keys()) if (!running.has(job)) this.#known.delete(job);
    for (const job of this.#asked) if (!running.has(job)) this.#asked.delete(job);
    for (const { job, step, loss, learning_rate } of jobs) {
      if (!this.#asked.has(job)) void this.#begin(job);
      if (loss !== null && learning_rate !== null) this.#add(job, { step: step - 1, loss, learning_rate });
    }
  }

  /** After the wire was broken, what was not heard is asked for. */
  again(): void {
    this.#asked.clear();
  }

  async #begin(job: number): Promise<void> {
    this.#asked.add(job);
    const curve = await this.ask(job);
    if (!curve || !this.#asked.has(job)) return;
    const last = curve.points.at(-1)?.step ?? -1;
    const heard = this.of(job).filter(({ step }) => step > last);
    this.#known.set(job, [...curve.points, ...heard]);
    this.changed();
  }

  #add(job: number, point: Point): void {
    const points = this.#known.get(job) ?? [];
    const last = points.at(-1)?.step ?? -1;
    if (point.step <= last) return;
    points.push(point);
    this.#known.set(job, points.length > MOST_POINTS ? points.filter((_, place) => place % 2 === 1) : points);
  }
}
