// The learning-rate paths, as the method's paper draws them: one panel for each paradigm.

import type { Paradigm, Segment } from "planner";
import { svg } from "lit-html";

import { lineChart, frame, type Line, type Piece } from "../charts/lines.ts";
import { learningRates } from "../core.ts";
import { count, rate, short } from "../format.ts";
import type { Picture } from "../picture.ts";
import { remembered } from "../remembered.ts";
import { PARADIGM_NAMES, PARADIGMS } from "../scenario.ts";
import type { Figure } from "./figure.ts";

/** More whole schedules than these are a blot: some are left out. */
const MOST_CURVES = 60;
const PIXELS_A_POINT = 2;
const MOST_POINTS = 160;

export const rates: Figure = {
  id: "learning-rates",
  title: "Learning rates",
  caption: ({ sizes }) =>
    `The main path never decays; each branch decays completely, and its end is a version. After a branch, the main path goes on from where the branch left it.${
      sizes.length > MOST_CURVES ? ` Of ${sizes.length} whole schedules from scratch, ${MOST_CURVES} are drawn.` : ""
    }`,
  chart(picture, width) {
    const columns = width >= 640 ? 3 : 1;
    const panel = { width: width / columns, height: columns === 1 ? 170 : 220 };
    const panels = PARADIGMS.map((paradigm, place) => {
      const [x, y] = columns === 1 ? [0, place * panel.height] : [place * panel.width, 0];
      return svg`<g transform="translate(${x} ${y})">${remembered(
        `rates ${paradigm}`,
        [picture.sizes, paradigm === "path-switching" ? picture.scenario.alpha : 1, picture.settings, panel],
        () => drawn(picture, paradigm, panel),
      )}</g>`;
    });
    return frame(
      width,
      panel.height * (columns === 1 ? 3 : 1),
      `Learning rates of ${picture.sizes.length} versions under each paradigm, between ${rate(picture.settings.min ?? 0)} and ${rate(picture.settings.peak ?? 0)}.`,
      panels,
    );
  },
  table(picture) {
    return {
      columns: [
        { name: "paradigm" },
        { name: "version" },
        { name: "segment" },
        { name: "from step", show: count },
        { name: "to step", show: count },
        { name: "first rate", show: rate },
        { name: "last rate", show: rate },
      ],
      rows: PARADIGMS.flatMap((paradigm) =>
        picture.ways[paradigm].segments.map((segment) => {
          const [first, last] = learningRates(segment, picture.settings, [segment.from, segment.to - 1]);
          const { version, kind, from, to } = segment;
          return [PARADIGM_NAMES[paradigm], picture.names[version - 1], kind, from, to, first, last];
        }),
      ),
    };
  },
  formulas: ({ settings, ways, scenario }) => {
    const first = ways["path-switching"].segments.find(({ kind }) => kind === "branch");
    const branch = first ? first.to - first.from : 0;
    return [
      {
        name: "main path, step t",
        text: `peak × min(1, (t + 1) / W) with peak = ${rate(settings.peak ?? 0)}, W = ${count(settings.warmup_steps ?? 0)}; then peak for ever`,
      },
      {
        name: `branch, step k of D = ${count(branch)} (${scenario.decay})`,
        text: `max(min, peak × f(x)), x = (k + 1) / D, r = min / peak; ${SHAPES[scenario.decay]}`,
      },
    ];
  },
};

const SHAPES = {
  cosine: "f = r + (1 − r)(1 + cos πx) / 2",
  linear: "f = r + (1 − r)(1 − x)",
  "one-minus-sqrt": "f = r + (1 − r)(1 − √x)",
  exponential: "f = r^x",
  knee: "f = r + (1 − r)(1 − x); from scratch, half of the steps stay at peak",
  "multi-step": "f = √0.1 up to x = ½, then 0.1, never below r",
};

function drawn(picture: Picture, paradigm: Paradigm, { width, height }: { width: number; height: number }) {
  const { segments } = picture.ways[paradigm];
  const end = picture.sizes.reduce((sum, size) => sum + size, 0);
  const pixelsAStep = width / end;
  const every = Math.max(1, Math.ceil(segments.length / MOST_CURVES));
  const isDrawn = (segment: Segment, place: number) => segment.kind !== "scratch" || (segments.length - 1 - place) % every === 0;
  const pieces = segments.filter(isDrawn).map((segment) => ({ segment, piece: sampled(picture, segment, pixelsAStep) }));
  const of = (main: boolean) => pieces.filter(({ segment }) => (segment.kind === "main") === main).map(({ piece }) => piece);
  const ends = of(false).map(({ x, y }) => ({ x: x[x.length - 1] ?? 0, y: y[y.length - 1] ?? 0 }));
  const dots = { x: ends.map(({ x }) => x), y: ends.map(({ y }) => y) };
  const name = PARADIGM_NAMES[paradigm];
  const lines: Line[] =
    paradigm === "path-switching"
      ? [
          { name: "main path", look: "main", pieces: of(true) },
          { name: "branches", look: "branch", pieces: of(false), dots },
        ]
      : [{ name, look: paradigm, pieces: of(false), dots }];
  const peak = picture.settings.peak ?? 0;
  return lineChart({
    width,
    height,
    x: { label: "steps", low: 0, high: end, show: short },
    y: { label: "learning rate", low: 0, high: peak * 1.02, show: rate },
    lines,
    description: name,
  });
}

/** Rates at every few pixels, and where a warm-up ends. */
function sampled({ settings }: Picture, segment: Segment, pixelsAStep: number): Piece {
  const { from, to, kind } = segment;
  const last = to - 1;
  const points = Math.min(MOST_POINTS, Math.max(2, Math.ceil(((to - from) * pixelsAStep) / PIXELS_A_POINT)), Math.max(2, to - from));
  const steps = new Set([from, last]);
  // A main path is level, but for its warm-up.
  if (kind !== "main") for (let at = 1; at < points - 1; at++) steps.add(from + Math.round(((last - from) * at) / (points - 1)));
  const warm = (from === 0 ? settings.warmup_steps : kind === "continual" ? settings.rewarmup_steps : 0) ?? 0;
  for (const knee of [from + warm - 1, from + warm]) if (warm && knee > from && knee < last) steps.add(knee);
  const x = Float64Array.from(steps).sort();
  const y = learningRates(segment, settings, x);
  // A branch leaves the main path where that is at peak.
  if (kind === "branch") return { x: [from, ...x], y: [settings.peak ?? 0, ...y] };
  return { x, y };
}
