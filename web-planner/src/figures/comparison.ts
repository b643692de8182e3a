// The three paradigms beside each other: what all versions cost.

import type { Band } from "planner";

import * as format from "../format.ts";
import type { Way, Picture } from "../picture.ts";
import { PARADIGM_NAMES, PARADIGMS } from "../scenario.ts";
import type { Figure, Formula, Table } from "./figure.ts";
import { ranged } from "./measure.ts";

interface Row {
  name: string | ((picture: Picture) => string);
  of: (way: Way) => Band | number;
  show: (value: number) => string;
  known?: (picture: Picture) => boolean;
}

const ROWS: readonly Row[] = [
  { name: "steps", of: ({ steps }) => steps, show: format.count },
  { name: "of from scratch", of: ({ ratio }) => ratio, show: format.percent },
  { name: "tokens", of: ({ cost }) => cost.tokens, show: format.short },
  { name: ({ scenario }) => `FLOPs (attention ${scenario.speed === "share" ? scenario.convention : "full"})`, of: ({ cost }) => cost.flops, show: format.digits },
  { name: "device-hours", of: ({ cost }) => cost.device_hours, show: format.digits },
  { name: "money", of: ({ cost }) => cost.money, show: format.dollars, known: ({ known }) => known.money },
  { name: "energy, kWh", of: ({ cost }) => cost.energy, show: format.digits, known: ({ known }) => known.energy },
  { name: "carbon, kg CO₂", of: ({ cost }) => cost.carbon, show: format.digits, known: ({ known }) => known.energy },
  { name: "first data to last version", of: ({ wallClock }) => wallClock, show: format.hours },
  { name: "last version after its data", of: ({ timeline }) => timeline.versions.at(-1)?.latency ?? 0, show: format.hours },
  { name: "disk at the end", of: ({ disk }) => disk.bytes, show: format.bytes },
];

export const comparison: Figure = {
  id: "costs",
  title: "What it costs",
  caption: ({ sizes, scenario }) =>
    `All ${sizes.length} versions together. In brackets what the inputs' ranges allow. Checkpoints are kept for ${scenario.branch_points} branch points.`,
  table(picture): Table {
    return {
      columns: [{ name: "" }, ...PARADIGMS.map((paradigm) => ({ name: PARADIGM_NAMES[paradigm] }))],
      rows: ROWS.map(({ name, of, show, known }) => [
        typeof name === "string" ? name : name(picture),
        ...PARADIGMS.map((paradigm) => {
          if (known && !known(picture)) return undefined;
          const value = of(picture.ways[paradigm]);
          return typeof value === "number" ? show(value) : ranged(value, show);
        }),
      ]),
    };
  },
  formulas,
};

function formulas(picture: Picture): Formula[] {
  const { count, digits, short } = format;
  const { scenario, model, sizes, ways, assumed, pace, flopsPerToken, tokensPerStep, known } = picture;
  const { sizes: s } = model;
  const ours = ways["path-switching"];
  const half = scenario.convention === "causal" && scenario.speed === "share" ? " / 2" : "";
  const [first = 0] = sizes;
  const branch = ours.segments.find(({ kind }) => kind === "branch");
  const decays = branch ? branch.to - branch.from : 0;
  const list: Formula[] = [
    {
      name: "tokens of a step",
      text: `sequence × batch = ${count(scenario.sequence_length)} × ${count(scenario.sequences_per_step)} = ${count(tokensPerStep)}`,
    },
    {
      name: "steps of the first increment",
      text: `T₁ = ⌊tokens / tokens of a step⌋ = ${count(first)}; what is left over comes first in the next`,
    },
    {
      name: "steps of its branch",
      text: `D₁ = min(T₁, max(1, ⌊α T₁ + ½⌋)) = ⌊${scenario.alpha} × ${count(first)} + ½⌋ = ${count(decays)}, from step B₁ = T₁ − D₁ = ${count(first - decays)}`,
    },
    {
      name: "steps, path switching",
      text: `B_N + ΣDᵢ = ${count(lastBranchPoint(ours))} + ${count(ours.steps - lastBranchPoint(ours))} = ${count(ours.steps)}`,
    },
    {
      name: "steps, from scratch",
      text: `ΣSᵢ, Sᵢ = T₁ + … + Tᵢ: ${count(ways["from-scratch"].steps)}`,
    },
    { name: "steps, continual", text: `ΣTᵢ = ${count(ways.continual.steps)}` },
    {
      name: "parameters in matrix products",
      text: `all but the embedding, of active experts only, with the head: ${count(model.matmulParameters)} of ${count(model.parameters)}`,
    },
    {
      name: "FLOPs of a token",
      text: `6 × ${count(model.matmulParameters)} + 12 × layers × heads × head width × sequence${half} = 6 × ${count(model.matmulParameters)} + 12 × ${s.layers} × ${s.heads} × ${s.head} × ${count(scenario.sequence_length)}${half} = ${digits(flopsPerToken)}`,
    },
    {
      name: "tokens a second of a device",
      text:
        scenario.speed === "measured"
          ? `measured: ${digits(pace.likely)}`
          : `FLOP/s × MFU / FLOPs of a token = ${digits(assumed.flops)} × ${digits(assumed.mfu.likely)} / ${digits(flopsPerToken)} = ${digits(pace.likely)}`,
    },
    {
      name: "device-hours, path switching",
      text: `tokens / (tokens a second × 3600) = ${short(ours.cost.tokens)} / (${digits(pace.likely)} × 3600) = ${digits(ours.cost.device_hours.likely)}`,
    },
  ];
  if (known.money && assumed.price) {
    list.push({
      name: "money, path switching",
      text: `device-hours × price = ${digits(ours.cost.device_hours.likely)} × ${format.dollars(assumed.price.likely)} = ${format.dollars(ours.cost.money.likely)}`,
    });
  }
  if (known.energy && assumed.power) {
    list.push({
      name: "energy, path switching",
      text: `device-hours × W / 1000 × PUE = ${digits(ours.cost.device_hours.likely)} × ${digits(assumed.power.likely)} / 1000 × ${digits(assumed.pue.likely)} = ${digits(ours.cost.energy.likely)} kWh; × ${digits(assumed.carbon.likely)} kg = ${digits(ours.cost.carbon.likely)} kg CO₂`,
    });
  }
  list.push({
    name: "disk, path switching",
    text: `checkpoints × 12 P + versions × 4 P = ${ours.disk.checkpoints} × ${format.bytes(ours.disk.checkpoint)} + ${ours.disk.releases} × ${format.bytes(ours.disk.release)} = ${format.bytes(ours.disk.bytes)}`,
  });
  return list;
}

function lastBranchPoint({ segments }: Way): number {
  return segments.findLast(({ kind }) => kind === "branch")?.from ?? 0;
}
