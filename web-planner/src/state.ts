// What is shown: one draft, with its past, and the last picture that could be drawn of it.

import * as address from "./address.ts";
import type { World } from "./core.ts";
import { DEFAULTS, type Draft, type FieldName, type Problems } from "./fields.ts";
import { picture, type Picture } from "./picture.ts";
import { read, Refusal } from "./scenario.ts";

/** Changes of one field that follow each other so closely are one step back. */
const ONE_CHANGE_MS = 800;
const LONGEST_PAST = 200;
const ADDRESS_AFTER_MS = 250;

export interface State {
  draft: Draft;
  problems: Problems;
  /** The last good one: it stays while something is wrong. */
  picture: Picture | undefined;
  notice: string | undefined;
  canUndo: boolean;
  canRedo: boolean;
}

const NO_PROBLEMS: Problems = new Map();

export class Store {
  #draft: Draft;
  #past: Draft[] = [];
  #future: Draft[] = [];
  #lastChange: { field: FieldName | undefined; at: number } = { field: undefined, at: 0 };
  #problems: Problems = NO_PROBLEMS;
  #picture: Picture | undefined;
  #notice: string | undefined;
  #addressTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly world: World,
    /** Something is to be shown; whether it is another draft. */
    private readonly changed: (isNew: boolean) => void,
  ) {
    const { draft, notice } = address.read(location.hash);
    this.#draft = draft;
    this.#notice = notice;
    addEventListener("hashchange", () => {
      if (location.hash === address.write(this.#draft)) return;
      const { draft, notice } = address.read(location.hash);
      this.replace(draft, notice);
    });
  }

  get state(): State {
    return {
      draft: this.#draft,
      problems: this.#problems,
      picture: this.#picture,
      notice: this.#notice,
      canUndo: this.#past.length > 0,
      canRedo: this.#future.length > 0,
    };
  }

  set(field: FieldName, value: string): void {
    if (this.#draft[field] === value) return;
    const now = performance.now();
    const goesOn = this.#lastChange.field === field && now - this.#lastChange.at < ONE_CHANGE_MS;
    this.#move({ ...this.#draft, [field]: value }, !goesOn);
    this.#lastChange = { field, at: now };
  }

  /** Another draft, from elsewhere. */
  replace(draft: Draft, notice?: string): void {
    this.#move(draft, true);
    this.#notice = notice;
  }

  reset(): void {
    this.replace(DEFAULTS);
  }

  undo(): void {
    const before = this.#past.pop();
    if (before) this.#goTo(before, this.#future);
  }

  redo(): void {
    const after = this.#future.pop();
    if (after) this.#goTo(after, this.#past);
  }

  /** Something is wrong that no draft shows: what was pasted or opened. */
  refuse(refusal: Refusal): void {
    this.#problems = new Map([...this.#problems, [refusal.field, refusal.message]]);
    this.changed(false);
  }

  notify(notice: string | undefined): void {
    this.#notice = notice;
    this.changed(false);
  }

  /** Draws the draft, if it can be drawn. */
  compute(): void {
    const { scenario, problems } = read(this.#draft);
    if (!scenario) {
      this.#problems = problems;
      return;
    }
    try {
      this.#picture = picture(scenario, this.world);
      this.#problems = NO_PROBLEMS;
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      this.#problems = new Map([[refusal.field, refusal.message]]);
    }
  }

  #move(draft: Draft, isStep: boolean): void {
    if (isStep) this.#past = [...this.#past.slice(-LONGEST_PAST), this.#draft];
    this.#future = [];
    this.#draft = draft;
    this.#settle();
  }

  #goTo(draft: Draft, opposite: Draft[]): void {
    opposite.push(this.#draft);
    this.#draft = draft;
    this.#settle();
  }

  #settle(): void {
    this.#lastChange = { field: undefined, at: 0 };
    this.#notice = undefined;
    clearTimeout(this.#addressTimer);
    this.#addressTimer = setTimeout(() => this.#writeAddress(), ADDRESS_AFTER_MS);
    this.changed(true);
  }

  /** The address is that of what can be drawn. */
  #writeAddress(): void {
    if (this.#problems.size) return;
    history.replaceState(null, "", address.write(this.#draft) || location.pathname + location.search);
  }
}
