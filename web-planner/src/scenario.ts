// From the text in the form to numbers, or to sentences about what is wrong with it.

import type { Decay, Law, Paradigm, Recompute, Settings, Zero } from "planner";

import { FIELDS, NAMES, type Draft, type Field, type FieldName, type NumberField, type Problems, type Scenario } from "./fields.ts";
import { digits, parse } from "./format.ts";

export type Read = { scenario: Scenario; problems?: undefined } | { scenario?: undefined; problems: Problems };

/** Something is wrong with one field. */
export class Refusal extends Error {
  constructor(
    readonly field: FieldName,
    sentence: string,
  ) {
    super(sentence);
  }
}

/** The whole form. */
export function read(draft: Draft): Read {
  const problems = new Map<FieldName, string>();
  const values: Record<string, unknown> = {};
  for (const name of NAMES) {
    try {
      values[name] = value(name, FIELDS[name], draft[name]);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      problems.set(name, refusal.message);
    }
  }
  // Every name has its value, each of its field's kind.
  return problems.size ? { problems } : { scenario: values as unknown as Scenario };
}

function value(name: FieldName, field: Field, text: string): unknown {
  switch (field.kind) {
    case "number":
      return numeric(name, field, text);
    case "choice":
      if (Object.keys(field.options).length && !(text in field.options)) {
        throw new Refusal(name, `“${cut(text)}” is none of ${Object.keys(field.options).join(", ")}`);
      }
      return text;
    case "flag":
      return text === "yes";
    case "text":
      return text;
  }
}

function numeric(name: FieldName, field: NumberField, text: string): number | undefined {
  if (!text.trim()) {
    if (field.optional) return undefined;
    throw new Refusal(name, "a number is missing");
  }
  const found = parse(text);
  if (found === undefined) throw new Refusal(name, `“${cut(text)}” is no number`);
  if (field.whole && !Number.isInteger(found)) throw new Refusal(name, `${found} is no whole number`);
  if (found < field.min || (field.above && found === field.min)) {
    throw new Refusal(name, `${found} is too small: ${field.above ? "more than" : "at least"} ${field.min} is possible`);
  }
  if (found > field.max) throw new Refusal(name, `${digits(found)} is too large: at most ${digits(field.max)} is possible`);
  return found;
}

const cut = (text: string): string => (text.length > 30 ? `${text.slice(0, 30)}…` : text);

export interface NamedIncrement {
  name: string;
  tokens: number;
}

/** A list of increments: what stands in one line or between commas is one of them, its name before its tokens. */
export function increments(scenario: Scenario, most: number): NamedIncrement[] {
  if (scenario.sizes === "equal") {
    return Array.from({ length: scenario.versions }, (_, place) => ({ name: `v${place + 1}`, tokens: scenario.tokens }));
  }
  const items = scenario.list.split(/[\n;,]/).filter((item) => item.trim());
  if (!items.length) throw new Refusal("list", "the list is empty: one number of tokens for each version is needed");
  if (items.length > most) throw new Refusal("list", `${items.length} increments are too many: at most ${most} are possible`);
  return items.map((item, place) => {
    const alone = parse(item);
    const [, name, text] = alone === undefined ? (/^(.*)[\s:=](\S+)$/.exec(item.trim()) ?? []) : [];
    const tokens = alone ?? parse(text ?? "");
    if (tokens === undefined) throw new Refusal("list", `increment ${place + 1}: “${cut(item.trim())}” is no number of tokens`);
    if (!Number.isSafeInteger(tokens) || tokens < 1) {
      throw new Refusal("list", `increment ${place + 1}: ${tokens} is no number of tokens: a whole number from 1 on is needed`);
    }
    return { name: name?.trim() || `v${place + 1}`, tokens };
  });
}

export function settings(scenario: Scenario): Settings {
  const { peak, min, warmup_steps, rewarmup_steps, hold } = scenario;
  const decay: Decay = scenario.decay;
  return { peak, min, warmup_steps, rewarmup_steps, decay, ...(hold === undefined ? {} : { hold }) };
}

export const PARADIGMS: readonly Paradigm[] = ["path-switching", "from-scratch", "continual"];
export const PARADIGM_NAMES = FIELDS.paradigm.options;

export function load(scenario: Scenario) {
  const recompute: Recompute = scenario.recompute;
  const { micro_batch, sequence_length } = scenario;
  return { micro_batch, sequence_length, recompute, gradient_bytes: Number(scenario.gradient_bytes) };
}

export function sharding(scenario: Scenario) {
  const zero: Zero = scenario.zero;
  const { devices, tensor, pipeline, expert, sequence_parallel } = scenario;
  return { devices, tensor, pipeline, expert, zero, sequence_parallel };
}

/** Published fits, which stand in until a team has its own. */
export const PUBLISHED_LAWS = {
  tissue: { L0: 2.628, A: 0.429, a: 0.55, C: 0.411, lambda: 0.999 },
  "multi-power": { L0: 2.52, A: 0.66, a: 0.42, B: 614.3, C: 0.16, beta: 0.88, gamma: 0.56 },
} as const;

/** Where they are from. */
export const LAW_SOURCES = {
  tissue: "594M parameters, arXiv 2408.11029",
  "multi-power": "400M parameters, ICLR 2025, table 7",
} as const;

export function law(scenario: Scenario): Law | undefined {
  const chosen = scenario.law;
  if (chosen === "none") return undefined;
  const given = (values: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      Object.entries(values).map(([key, value]) => [key, (scenario[`law_${key}` as FieldName] as number | undefined) ?? value]),
    );
  return { [chosen]: given(PUBLISHED_LAWS[chosen]) } as unknown as Law;
}

/** Parameters of a law as they are pasted, read into its fields. */
export function pastedLaw(text: string): Partial<Draft> {
  let pasted: unknown;
  try {
    pasted = JSON.parse(text);
  } catch {
    throw new Refusal("law", "what was pasted is no JSON");
  }
  const [name, values] = Object.entries(pasted ?? {}).find(([key]) => key in PUBLISHED_LAWS) ?? [];
  if (!name || typeof values !== "object" || values === null) {
    throw new Refusal("law", `it has neither "tissue" nor "multi-power": {"tissue": {"L0": 2.6, …}} was expected`);
  }
  const draft: Record<string, string> = { law: name };
  for (const key of Object.keys(PUBLISHED_LAWS[name as keyof typeof PUBLISHED_LAWS])) {
    const value: unknown = (values as Record<string, unknown>)[key];
    if (typeof value !== "number") throw new Refusal("law", `${name}: ${key} is missing, or no number`);
    draft[`law_${key}`] = String(value);
  }
  return draft;
}
