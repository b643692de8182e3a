// All that the page shows of a scenario. It asks the arithmetic and adds up; a refusal becomes a sentence beside a field.

import type {
  Band,
  ConfigJson,
  Cost,
  Counted,
  Disk,
  Footprint,
  Law,
  Point,
  Paradigm,
  Report,
  Segment,
  Settings,
  Speed,
  Timeline,
} from "planner";

import { assumed, type Assumed } from "./assumptions.ts";
import * as core from "./core.ts";
import type { World } from "./core.ts";
import { MOST_VERSIONS, type FieldName, type Scenario } from "./fields.ts";
import { remembered } from "./remembered.ts";
import { increments, law, load, PARADIGMS, Refusal, settings, sharding, type NamedIncrement } from "./scenario.ts";

/** One paradigm. */
export interface Way {
  paradigm: Paradigm;
  steps: number;
  /** Of the steps of from-scratch. */
  ratio: number;
  segments: readonly Segment[];
  cost: Cost;
  /** What all versions up to each have cost. */
  cumulative: readonly Cost[];
  timeline: Timeline;
  /** Hours from the first data to the last version. */
  wallClock: Band;
  disk: Disk;
}

export interface Picture {
  scenario: Scenario;
  assumed: Assumed;
  settings: Settings;
  config: ConfigJson;
  modelName: string;
  model: Counted;
  names: readonly string[];
  /** Steps of the increments. */
  sizes: readonly number[];
  tokensPerStep: number;
  /** Tokens a second of one device. */
  pace: Band;
  flopsPerToken: number;
  hoursPerStep: Band;
  ways: Readonly<Record<Paradigm, Way>>;
  alphas: readonly Point[];
  footprint: Footprint;
  law: Law | undefined;
  /** Whether there is anything to say of money, and of energy. */
  known: { money: boolean; energy: boolean };
}

/** Alphas that costs are drawn for. */
const ALPHAS = Float64Array.from({ length: 100 }, (_, place) => (place + 1) / 100);

export function picture(scenario: Scenario, world: World): Picture {
  const list = scenario.sizes === "list";
  function ask<T>(otherwise: FieldName, question: () => T): T {
    try {
      return question();
    } catch (error) {
      throw core.refusal(error, otherwise, list);
    }
  }
  const { config, name: modelName } = chosenModel(scenario, world);
  const modelField = scenario.model === "custom" ? "config" : "model";
  const model = remembered("model", [config, scenario.sequence_length], () =>
    ask(modelField, () => core.countModel(config, scenario.sequence_length)),
  );
  const named: NamedIncrement[] = increments(scenario, MOST_VERSIONS);
  const { sequence_length, sequences_per_step } = scenario;
  const batch = { sequence_length, sequences_per_step };
  const sizes = ask("sequences_per_step", () => core.wholeSteps(named.map(({ tokens }) => tokens), batch));
  const tokensPerStep = sequence_length * sequences_per_step;
  const short = sizes.indexOf(0);
  if (short >= 0) {
    throw new Refusal(
      list ? "list" : "tokens",
      `increment ${short + 1}, ${named[short]?.name}, has no whole step: one takes ${tokensPerStep.toLocaleString("en-US")} tokens`,
    );
  }
  if (scenario.made > sizes.length) {
    throw new Refusal("made", `there are only ${sizes.length} versions in all`);
  }
  const report = ask("alpha", () => core.plan(sizes, scenario.alpha));
  const rates = settings(scenario);
  ask("peak", () => core.checkWarmup(sizes, scenario.alpha, rates));

  const taken = assumed(scenario, world);
  const speed: Speed =
    scenario.speed === "measured" && taken.tokens_per_second
      ? { measured: { tokens_per_second: taken.tokens_per_second } }
      : { share: { flops: taken.flops, mfu: taken.mfu, convention: scenario.convention } };
  const nothing = { low: 0, likely: 0, high: 0 };
  const { pue, carbon, price = nothing, power = nothing } = taken;
  const prices = { price, power, pue, carbon };
  const costsOf = (name: string, steps: readonly number[]) =>
    remembered(`costs ${name}`, [config, batch, speed, prices, steps], () =>
      ask("mfu", () => core.costs(config, batch, speed, prices, [...steps])),
    );
  const one = costsOf("of a step", [1]);
  const [step] = one.costs;
  if (!step) throw new Error("costs: as many answers as questions were expected");
  const perDevice = (hours: number) => hours / scenario.devices;
  const hoursPerStep = {
    low: perDevice(step.device_hours.low),
    likely: perDevice(step.device_hours.likely),
    high: perDevice(step.device_hours.high),
  };

  const timeline = (paradigm: Paradigm, end: keyof Band) => {
    const pace = {
      slots: scenario.slots,
      hours_per_step: hoursPerStep[end],
      hours_between: scenario.days_between * 24,
      ahead: scenario.ahead,
    };
    // Only a branch hangs on alpha.
    const alpha = paradigm === "path-switching" ? scenario.alpha : 1;
    return remembered(`timeline ${paradigm} ${end}`, [sizes, alpha, pace], () =>
      ask("slots", () => core.timeline(paradigm, sizes, alpha, pace)),
    );
  };
  const last = ({ versions }: Timeline) => versions.at(-1)?.ready ?? 0;
  const ways = PARADIGMS.map((paradigm): Way => {
    const cumulative = costsOf(paradigm, running(stepsOf(report, paradigm, sizes.length))).costs;
    const cost = cumulative.at(-1) ?? step;
    const likely = timeline(paradigm, "likely");
    return {
      paradigm,
      steps: report.paradigms[paradigm].steps,
      ratio: report.paradigms[paradigm].ratio,
      segments: report.paradigms[paradigm].segments,
      cost,
      cumulative,
      timeline: likely,
      wallClock: {
        low: last(timeline(paradigm, "low")),
        likely: last(likely),
        high: last(timeline(paradigm, "high")),
      },
      disk: remembered(`disk ${paradigm}`, [config, sizes.length, scenario.branch_points], () =>
        ask("branch_points", () => core.disk(config, paradigm, sizes.length, scenario.branch_points)),
      ),
    };
  });

  return {
    scenario,
    assumed: taken,
    settings: rates,
    config,
    modelName,
    model,
    names: named.map(({ name }) => name),
    sizes,
    tokensPerStep,
    pace: one.pace,
    flopsPerToken: one.flopsPerToken,
    hoursPerStep,
    ways: Object.fromEntries(ways.map((way) => [way.paradigm, way])) as Record<Paradigm, Way>,
    alphas: remembered("alphas", [sizes, rates], () =>
      ask("alpha", () => core.alphaPoints([...sizes], rates, undefined, ALPHAS)),
    ),
    footprint: remembered("footprint", [config, sharding(scenario), load(scenario)], () =>
      ask("devices", () => core.footprint(config, sharding(scenario), load(scenario))),
    ),
    law: law(scenario),
    known: { money: price.high > 0, energy: power.high > 0 },
  };
}

/** Steps that are trained for each version. */
function stepsOf(report: Report, paradigm: Paradigm, versions: number): number[] {
  const steps = Array<number>(versions).fill(0);
  for (const { version, from, to } of report.paradigms[paradigm].segments) {
    steps[version - 1] = (steps[version - 1] ?? 0) + to - from;
  }
  return steps;
}

function running(steps: readonly number[]): number[] {
  let sum = 0;
  return steps.map((more) => (sum += more));
}

function chosenModel(scenario: Scenario, world: World): { config: ConfigJson; name: string } {
  if (scenario.model !== "custom") {
    const preset = world.presets.find(({ id }) => id === scenario.model);
    if (!preset) throw new Refusal("model", `there is no model “${scenario.model}”`);
    return preset;
  }
  if (!scenario.config.trim()) throw new Refusal("config", "a config.json is missing: paste one, or open its file");
  try {
    const config = JSON.parse(scenario.config) as ConfigJson;
    return { config, name: `a ${config?.model_type ?? "model"} of one's own` };
  } catch (error) {
    throw new Refusal("config", `it is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}
