import type { Bar, Paradigm } from "planner";

import { barChart, type Box } from "../charts/bars.ts";
import { lineChart } from "../charts/lines.ts";
import { upTo } from "../charts/scale.ts";
import { count, digits, hours } from "../format.ts";
import type { Picture } from "../picture.ts";
import { PARADIGM_NAMES, PARADIGMS } from "../scenario.ts";
import type { Figure } from "./figure.ts";

const LOOKS = [
  { name: "main path", look: "main" },
  { name: "main path ahead", look: "ahead" },
  { name: "branch", look: "branch" },
  { name: "from scratch", look: "from-scratch" },
  { name: "continual", look: "continual" },
];
const MOST_ARRIVALS = 60;

function look(paradigm: Paradigm, { segment, ahead }: Pick<Bar, "segment" | "ahead">): string {
  if (paradigm !== "path-switching") return paradigm;
  return segment.kind === "main" && ahead ? "ahead" : segment.kind;
}

/** Hours, or days where it goes on for long. */
function unit(picture: Picture): { label: string; hours: number } {
  const end = Math.max(...PARADIGMS.map((paradigm) => picture.ways[paradigm].wallClock.likely));
  return end > 96 ? { label: "days since the first data", hours: 24 } : { label: "hours since the first data", hours: 1 };
}

export const timeline: Figure = {
  id: "timeline",
  title: "Who trains when",
  caption: ({ scenario }) =>
    `Data of an increment arrive all at once, every ${digits(scenario.days_between)} days (upright lines). A branch goes before the main path, and the main path before what nobody waits for yet.`,
  chart(picture, width) {
    const { label, hours } = unit(picture);
    const { slots } = picture.scenario;
    const boxes: Box[] = [];
    const rows: string[] = [];
    for (const paradigm of PARADIGMS) {
      for (const { slot, begins, ends, ...bar } of picture.ways[paradigm].timeline.bars) {
        const { segment } = bar;
        const isMain = segment.kind === "main";
        const named = isMain ? "" : (picture.names[segment.version - 1] ?? "");
        boxes.push({
          row: rows.length + slot,
          from: begins / hours,
          to: ends / hours,
          look: look(paradigm, bar),
          label: named,
        });
      }
      for (let slot = 0; slot < slots; slot++) rows.push(slots === 1 ? PARADIGM_NAMES[paradigm] : `${PARADIGM_NAMES[paradigm]} ${slot + 1}`);
    }
    const end = Math.max(...boxes.map(({ to }) => to));
    const arrivals = picture.ways.continual.timeline.versions;
    return barChart({
      width,
      rows,
      x: { label, low: 0, high: upTo(end, 6), show: digits },
      boxes,
      looks: LOOKS,
      marks: arrivals.length <= MOST_ARRIVALS ? arrivals.map(({ arrives }) => ({ at: arrives / hours, label: "" })) : [],
      description: `Which slot trains what when, over ${digits(end)} ${label}, for each paradigm.`,
    });
  },
  table(picture) {
    return {
      columns: [
        { name: "paradigm" },
        { name: "slot" },
        { name: "version" },
        { name: "what" },
        { name: "steps", show: count },
        { name: "begins", show: hours },
        { name: "ends", show: hours },
      ],
      rows: PARADIGMS.flatMap((paradigm) =>
        picture.ways[paradigm].timeline.bars.map(({ segment, ahead, slot, begins, ends }) => [
          PARADIGM_NAMES[paradigm],
          String(slot + 1),
          picture.names[segment.version - 1],
          ahead ? "main, ahead" : segment.kind,
          segment.to - segment.from,
          begins,
          ends,
        ]),
      ),
    };
  },
  formulas: ({ hoursPerStep, scenario, tokensPerStep, pace }) => [
    {
      name: "hours of a step",
      text: `tokens of a step / (tokens a second × devices of a job × 3600) = ${count(tokensPerStep)} / (${digits(pace.likely)} × ${scenario.devices} × 3600) = ${digits(hoursPerStep.likely)}`,
    },
  ],
};

export const latency: Figure = {
  id: "latency",
  title: "How long a version is waited for",
  caption: () =>
    "From the arrival of an increment's data to its version. Path switching keeps it level, since a version needs its own steps only; from scratch it grows with all data there are.",
  chart(picture, width) {
    const numbers = picture.names.map((_, place) => place + 1);
    const lines = PARADIGMS.map((paradigm) => ({
      name: PARADIGM_NAMES[paradigm],
      look: paradigm,
      pieces: [{ x: numbers, y: picture.ways[paradigm].timeline.versions.map(({ latency }) => latency) }],
    }));
    const largest = Math.max(...lines.flatMap(({ pieces }) => pieces[0]?.y ?? []));
    const [size, label] = largest > 96 ? [24, "days"] : [1, "hours"];
    const inUnit = lines.map((line) => ({
      ...line,
      pieces: line.pieces.map(({ x, y }) => ({ x, y: y.map((hours) => hours / size) })),
    }));
    return lineChart({
      width,
      height: 260,
      x: { label: "version", low: 1, high: Math.max(2, numbers.length), show: (value) => (Number.isInteger(value) ? count(value) : "") },
      y: { label, low: 0, high: upTo(largest / size, 5), show: digits },
      lines: inUnit,
      description: `Latency against versions: the last one comes ${lines
        .map(({ name, pieces }) => `${hours(pieces[0]?.y.at(-1) ?? 0)} after its data with ${name}`)
        .join(", ")}.`,
    });
  },
  formulas: ({ ways, names }) =>
    PARADIGMS.flatMap((paradigm) => {
      const last = ways[paradigm].timeline.versions.at(-1);
      if (!last) return [];
      return [
        {
          name: `${PARADIGM_NAMES[paradigm]}, ${names.at(-1)}`,
          text: `end of its last step − arrival of its data = ${digits(last.ready)} h − ${digits(last.arrives)} h = ${digits(last.latency)} h`,
        },
      ];
    }),
  table(picture) {
    return {
      columns: [
        { name: "version" },
        { name: "data arrive", show: hours },
        ...PARADIGMS.map((paradigm) => ({ name: PARADIGM_NAMES[paradigm], show: hours })),
      ],
      rows: picture.names.map((name, place) => [
        name,
        picture.ways.continual.timeline.versions[place]?.arrives,
        ...PARADIGMS.map((paradigm) => picture.ways[paradigm].timeline.versions[place]?.latency),
      ]),
    };
  },
};
