// What is shown, for other programs and for papers.

import * as address from "./address.ts";
import { DEFAULTS, FIELDS, NAMES, type Draft } from "./fields.ts";
import { count, digits, percent } from "./format.ts";
import type { Cell, Figure } from "./figures/figure.ts";
import { MEASURES, ranged } from "./figures/measure.ts";
import type { Picture } from "./picture.ts";
import { PARADIGMS } from "./scenario.ts";

export const FORMAT = "lrpath-planner";
export const VERSION = 1;

/** All of it: what was set, which this page reads again, and what follows. */
export function json(draft: Draft, picture: Picture): string {
  const { model, sizes, names, ways, footprint, tokensPerStep, pace, hoursPerStep } = picture;
  const set = Object.fromEntries(NAMES.filter((name) => draft[name] !== DEFAULTS[name]).map((name) => [name, draft[name]]));
  return `${JSON.stringify(
    {
      format: FORMAT,
      version: VERSION,
      set,
      results: {
        model: picture.modelName,
        parameters: model.parameters,
        active_parameters: model.activeParameters,
        flops_per_token: picture.flopsPerToken,
        tokens_per_step: tokensPerStep,
        tokens_per_second_of_a_device: pace,
        hours_per_step: hoursPerStep,
        increments: names.map((name, place) => ({ name, steps: sizes[place] })),
        paradigms: Object.fromEntries(
          PARADIGMS.map((paradigm) => {
            const { steps, ratio, segments, cost, wallClock, disk, timeline } = ways[paradigm];
            return [paradigm, { ...cost, steps, ratio, wall_clock_hours: wallClock, disk, segments, versions: timeline.versions }];
          }),
        ),
        footprint,
      },
    },
    null,
    1,
  )}\n`;
}

/** A sentence that can be quoted, with all that it stands on. */
export function citation(draft: Draft, picture: Picture): string {
  const ours = picture.ways["path-switching"];
  const { scenario, assumed, known } = picture;
  const speed =
    scenario.speed === "measured"
      ? `${digits(picture.pace.likely)} tokens a second of each device, measured`
      : `${percent(assumed.mfu.likely)} MFU (FLOPs of attention: ${FIELDS.convention.options[scenario.convention]})`;
  const money = known.money ? `, ${ranged(MEASURES.money.of(ours.cost), MEASURES.money.show)}` : "";
  return `${picture.sizes.length} versions of ${picture.modelName} (${count(picture.model.parameters)} parameters), made by learning-rate path switching (arXiv 2410.04103) with alpha = ${scenario.alpha}, take ${count(ours.steps)} steps of ${count(picture.tokensPerStep)} tokens, ${percent(ours.ratio)} of what from-scratch training takes: ${ranged(ours.cost.device_hours, digits)} device-hours of ${assumed.device} at ${speed}${money}. Computed with the lrpath planner: ${address.write(draft) || "its defaults"}`;
}

/** The configuration of this plan, as lrpathd reads it. */
export function toml({ scenario, names, sizes, tokensPerStep, settings }: Picture): string {
  const { sequence_length, sequences_per_step } = scenario;
  const first = sizes[0] ?? 1;
  const isEqual = sizes.every((size) => size === first);
  const cut = isEqual
    ? `every_tokens = ${first * tokensPerStep}`
    : `# The increments differ: each is closed by hand, with lrpathctl cut.\n${names.map((name, place) => `#   ${oneLine(name)}: ${(sizes[place] ?? 0) * tokensPerStep} tokens`).join("\n")}`;
  const lines = [
    `# ${sizes.length} versions, planned with the lrpath planner.`,
    `paradigm = "${scenario.paradigm}"`,
    "",
    "[model]",
    "# The file that the planner gives beside this one.",
    `config = "config.json"`,
    "",
    "[data]",
    `sequence_length = ${sequence_length}`,
    `sequences_per_step = ${sequences_per_step}`,
    "",
    "[schedule]",
    `peak = ${settings.peak}`,
    `min = ${settings.min}`,
    `warmup_steps = ${settings.warmup_steps}`,
    `alpha = ${scenario.alpha}`,
    `decay = "${settings.decay}"`,
    ...(settings.hold === undefined ? [] : [`hold = ${settings.hold}`]),
    `rewarmup_steps = ${settings.rewarmup_steps}`,
    "",
    "[cut]",
    cut,
    "",
    "[retention]",
    `branch_points = ${scenario.branch_points}`,
  ];
  return `${lines.join("\n")}\n`;
}

/** A name from elsewhere must not end the comment that it stands in. */
const oneLine = (text: string) => text.replace(/[^\p{L}\p{N} ._-]/gu, "?").slice(0, 80);

/** What everything stands on: what was set, and what was taken where nothing was. */
export function inputs(draft: Draft, placeholders: Partial<Draft>): Figure {
  return {
    id: "inputs",
    title: "What this stands on",
    caption: () => "Everything that was set, and what was taken where nothing was.",
    table: () => ({
      columns: [{ name: "input" }, { name: "value" }, { name: "" }],
      rows: NAMES.flatMap((name): Cell[][] => {
        const field = FIELDS[name];
        const isSet = draft[name] !== "";
        const value = isSet ? draft[name] : placeholders[name];
        if (value === undefined || value === "") return [];
        const unit = "unit" in field && field.unit ? ` ${field.unit}` : "";
        const source = draft[name] !== DEFAULTS[name] ? "set" : isSet ? "default" : "taken";
        return [[field.label, `${value}${unit}`, source]];
      }),
    }),
  };
}
