// Who does what when, and what fills a whole: boxes beside each other.

import { svg, type SVGTemplateResult } from "lit-html";

import { frame, legend, legendHeight, xAxis, type Axis } from "./lines.ts";
import { linear } from "./scale.ts";

export interface Box {
  row: number;
  from: number;
  to: number;
  look: string;
  /** Words inside, where there is room. */
  label?: string;
}

export interface BarChart {
  width: number;
  /** Names of the rows; an empty one is a gap. */
  rows: readonly string[];
  x: Axis;
  boxes: readonly Box[];
  looks: readonly { name: string; look: string }[];
  marks?: readonly { at: number; label: string }[];
  description: string;
}

const ROW = 24;
const LETTER = 6.6;
const BOTTOM = 40;
const TOP = 30;

export function barChart(chart: BarChart): SVGTemplateResult {
  const { width, rows, boxes } = chart;
  const top = TOP + legendHeight(chart.looks, width) - 4;
  const height = top + rows.length * ROW + BOTTOM;
  const left = Math.ceil(Math.max(...rows.map((row) => row.length)) * LETTER) + 8;
  const x = linear(chart.x.low, chart.x.high, left, width - 14, Math.max(2, Math.floor((width - left) / 100)));
  // Boxes of one look are one element, so that thousands of them are drawn as soon as a few.
  const byLook = new Map<string, string>();
  for (const { row, from, to, look } of boxes) {
    const box = `M${x(from).toFixed(1)} ${top + row * ROW + 3}h${Math.max(0.4, x(to) - x(from)).toFixed(1)}v${ROW - 6}H${x(from).toFixed(1)}z`;
    byLook.set(look, (byLook.get(look) ?? "") + box);
  }
  const labels = boxes.filter(({ label, from, to }) => label && x(to) - x(from) > label.length * LETTER + 4);
  return frame(
    width,
    height,
    chart.description,
    svg`
      ${legend(chart.looks, width, true)}
      ${xAxis(chart.x, x, width, height)}
      <g class="axis">${rows.map((row, place) => svg`<text x=${left - 6} y=${top + (place + 0.5) * ROW} dy="0.35em" text-anchor="end">${row}</text>`)}</g>
      ${[...byLook].map(([look, path]) => svg`<path class="bar ${look}" d=${path}></path>`)}
      ${labels.map(
        ({ row, from, to, look, label }) =>
          svg`<text class="inside ${look}" x=${((x(from) + x(to)) / 2).toFixed(1)} y=${top + (row + 0.5) * ROW} dy="0.35em" text-anchor="middle">${label}</text>`,
      )}
      ${(chart.marks ?? []).map(
        ({ at, label }) => svg`<path class="mark" d="M${x(at).toFixed(1)} ${top}V${height - BOTTOM}"></path>${
          label ? svg`<text class="note" x=${x(at) > width / 2 ? x(at) - 4 : x(at) + 4} y=${top - 2} text-anchor=${x(at) > width / 2 ? "end" : "start"}>${label}</text>` : ""
        }`,
      )}
    `,
  );
}
