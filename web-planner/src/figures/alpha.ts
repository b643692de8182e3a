import { lineChart } from "../charts/lines.ts";
import { upTo } from "../charts/scale.ts";
import { count, digits, percent } from "../format.ts";
import { PARADIGM_NAMES, PARADIGMS } from "../scenario.ts";
import type { Figure } from "./figure.ts";
import { measure, ofOneStep } from "./measure.ts";

export const alpha: Figure = {
  id: "alpha",
  title: "Cost against alpha",
  caption: () =>
    "Alpha is the share of each increment that its branch covers, and the main path then trains again. The other two paradigms have none.",
  chart(picture, width) {
    const { show, name } = measure(picture);
    const each = ofOneStep(picture);
    const xs = picture.alphas.map(({ alpha }) => alpha);
    const ends = [0, 1];
    const lines = PARADIGMS.map((paradigm) => {
      const isOurs = paradigm === "path-switching";
      const steps = isOurs ? picture.alphas.map(({ steps }) => steps) : ends.map(() => picture.ways[paradigm].steps);
      const along = (end: "low" | "likely" | "high") => steps.map((steps) => steps * each[end]);
      const x = isOurs ? xs : ends;
      return {
        name: PARADIGM_NAMES[paradigm],
        look: paradigm,
        pieces: [{ x, y: along("likely") }],
        range: isOurs ? { x, low: along("low"), high: along("high") } : undefined,
        largest: Math.max(...along(isOurs ? "high" : "likely")),
      };
    });
    const { alpha } = picture.scenario;
    const ours = picture.ways["path-switching"];
    return lineChart({
      width,
      height: 280,
      x: { label: "alpha", low: 0, high: 1, show: digits },
      y: { label: name, low: 0, high: upTo(Math.max(...lines.map(({ largest }) => largest)), 5), show },
      lines,
      marks: [{ at: alpha, label: `${digits(alpha)}: ${show(ours.steps * each.likely)}, ${percent(ours.ratio)}` }],
      description: `Cost in ${name} against alpha: at ${digits(alpha)}, path switching takes ${percent(ours.ratio)} of from scratch.`,
    });
  },
  formulas(picture) {
    const { show } = measure(picture);
    const { alpha } = picture.scenario;
    const { steps, ratio, segments } = picture.ways["path-switching"];
    const branches = segments.filter(({ kind }) => kind === "branch").reduce((sum, { from, to }) => sum + to - from, 0);
    const each = ofOneStep(picture).likely;
    return [
      {
        name: `steps at alpha ${digits(alpha)}`,
        text: `B_N + ΣDᵢ, Dᵢ = min(Tᵢ, max(1, ⌊α Tᵢ + ½⌋)): ${count(steps - branches)} + ${count(branches)} = ${count(steps)}`,
      },
      { name: "cost", text: `steps × cost of a step = ${count(steps)} × ${digits(each)} = ${show(steps * each)}` },
      { name: "of from scratch", text: `${count(steps)} / ${count(picture.ways["from-scratch"].steps)} = ${percent(ratio)}` },
    ];
  },
  table(picture) {
    const { show, name } = measure(picture);
    const each = ofOneStep(picture);
    return {
      columns: [
        { name: "alpha", show: digits },
        { name: "steps", show: count },
        { name: "of from scratch", show: percent },
        { name, show },
      ],
      rows: picture.alphas
        .filter((_, place) => place % 5 === 4)
        .map(({ alpha, steps, ratio }) => [alpha, steps, ratio, steps * each.likely]),
    };
  },
};
