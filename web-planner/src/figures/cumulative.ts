import { lineChart } from "../charts/lines.ts";
import { upTo } from "../charts/scale.ts";
import { count, digits } from "../format.ts";
import { PARADIGM_NAMES, PARADIGMS } from "../scenario.ts";
import type { Figure } from "./figure.ts";
import { measure, ofOneStep } from "./measure.ts";

export const cumulative: Figure = {
  id: "cumulative",
  title: "Cost up to each version",
  caption: ({ scenario }) =>
    `From scratch, each version pays for all data once more: its curve bends upwards. ${
      scenario.made ? `The first ${scenario.made} versions are there already.` : "Shaded: what the inputs' ranges allow."
    }`,
  chart(picture, width) {
    const { of, show, name } = measure(picture);
    const versions = picture.sizes.length;
    const numbers = Array.from({ length: versions + 1 }, (_, version) => version);
    const lines = PARADIGMS.map((paradigm) => {
      const bands = picture.ways[paradigm].cumulative.map(of);
      const along = (end: "low" | "likely" | "high") => [0, ...bands.map((band) => band[end])];
      return {
        name: PARADIGM_NAMES[paradigm],
        look: paradigm,
        pieces: [{ x: numbers, y: along("likely") }],
        range: { x: numbers, low: along("low"), high: along("high") },
      };
    });
    const largest = Math.max(...lines.map(({ range }) => range.high.at(-1) ?? 0));
    return lineChart({
      width,
      height: 280,
      x: { label: "versions", low: 0, high: versions, show: count },
      y: { label: name, low: 0, high: upTo(largest, 5), show },
      lines,
      marks: picture.scenario.made ? [{ at: picture.scenario.made, label: "now" }] : [],
      description: `Cost in ${name} against versions: ${lines
        .map(({ name, pieces }) => `${name} ${show(pieces[0]?.y.at(-1) ?? 0)}`)
        .join(", ")} after version ${versions}.`,
    });
  },
  formulas(picture) {
    const { show } = measure(picture);
    const versions = picture.sizes.length;
    return PARADIGMS.map((paradigm) => {
      const { steps, cumulative } = picture.ways[paradigm];
      const each = ofOneStep(picture);
      const cost = cumulative.at(-1);
      return {
        name: `${PARADIGM_NAMES[paradigm]}, up to version ${versions}`,
        text: `its steps × cost of a step = ${count(steps)} × ${digits(each.likely)} = ${cost ? show(measure(picture).of(cost).likely) : ""}`,
      };
    });
  },
  table(picture) {
    const { of, show, name } = measure(picture);
    return {
      columns: [
        { name: "version" },
        { name: "steps of its increment", show: count },
        ...PARADIGMS.map((paradigm) => ({ name: `${PARADIGM_NAMES[paradigm]}, ${name}`, show })),
      ],
      rows: picture.names.map((name, place) => [
        name,
        picture.sizes[place],
        ...PARADIGMS.map((paradigm) => {
          const cost = picture.ways[paradigm].cumulative[place];
          return cost && of(cost).likely;
        }),
      ]),
    };
  },
};
