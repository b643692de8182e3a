// The only door to the arithmetic. It is the daemon's own, compiled for the browser.

import * as planner from "planner";
import type { ConfigJson } from "planner";
import { wasm } from "wasm";

import { FIELDS, type FieldName } from "./fields.ts";
import { Refusal } from "./scenario.ts";

export interface Preset {
  id: string;
  name: string;
  config: ConfigJson;
}

/** Fields of the arithmetic that have another name in the form. */
const ELSEWHERE: Readonly<Record<string, FieldName>> = {
  increments: "tokens",
  steps: "tokens",
  hours_per_step: "devices",
  hours_between: "days_between",
  "tokens of a step": "sequences_per_step",
  "bytes of a device": "micro_batch",
  "bytes on the disk": "branch_points",
  ...Object.fromEntries(["L0", "A", "a", "B", "C", "lambda", "beta", "gamma"].map((key) => [key, `law_${key}` as FieldName])),
};

/** What the arithmetic knows beside formulas. */
export interface World {
  readonly presets: readonly Preset[];
  readonly devices: readonly planner.Device[];
}

/** Loads it, once. */
export async function load(): Promise<World> {
  planner.initSync({ module: await wasm() });
  return { presets: JSON.parse(planner.presets()) as Preset[], devices: planner.devices() };
}

/** What a refusal of the arithmetic is about: it begins with the name of a field. */
export function refusal(error: unknown, otherwise: FieldName, list: boolean): Refusal {
  if (error instanceof Refusal) return error;
  const said = error instanceof Error ? error.message : String(error);
  const [, word = "", sentence = said] = /^([\w. ]+?): ([^]*)$/.exec(said) ?? [];
  const known = word in FIELDS ? (word as FieldName) : ELSEWHERE[word];
  const field = known ?? otherwise;
  // A name that is no field's, such as a key of a config.json, stays in the sentence.
  return new Refusal(field === "tokens" && list ? "list" : field, known ? sentence : said);
}

export * from "planner";
