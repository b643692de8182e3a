// Lines on two axes, as SVG that needs nothing but the charts' style sheet.

import { nothing, svg, type SVGTemplateResult } from "lit-html";

import { linear, type Scale } from "./scale.ts";

/** Pieces of one line: x and y of its points, in the units of the axes. */
export interface Piece {
  x: ArrayLike<number>;
  y: ArrayLike<number>;
}

export interface Line {
  name: string;
  /** Names its colour and its dashes in the style sheet. */
  look: string;
  pieces: readonly Piece[];
  /** The range around it. */
  range?: { x: ArrayLike<number>; low: ArrayLike<number>; high: ArrayLike<number> };
  /** Points that are set apart. */
  dots?: Piece;
}

export interface Axis {
  label: string;
  low: number;
  high: number;
  show: (value: number) => string;
}

export interface Chart {
  width: number;
  height: number;
  x: Axis;
  y: Axis;
  lines: readonly Line[];
  /** Values of x that are marked by an upright line, with words. */
  marks?: readonly { at: number; label: string }[];
  /** What it shows, for those who do not see it. */
  description: string;
}

const LETTER = 6.6;
const TOP = 24;
const BOTTOM = 40;

export function lineChart(chart: Chart): SVGTemplateResult {
  const { width, height } = chart;
  const about = { x: Math.max(2, Math.floor(width / 110)), y: Math.max(2, Math.floor(height / 60)) };
  const labels = linear(chart.y.low, chart.y.high, 0, 1, about.y).ticks.map(chart.y.show);
  const left = Math.ceil(Math.max(...labels.map((label) => label.length), 3) * LETTER) + 10;
  const y = linear(chart.y.low, chart.y.high, height - BOTTOM, TOP + legendHeight(chart.lines, width), about.y);
  const x = linear(chart.x.low, chart.x.high, left, width - 12, about.x);
  return frame(
    width,
    height,
    chart.description,
    svg`
      ${legend(chart.lines, width)}
      ${yAxis(chart.y, y, left, width)}
      ${xAxis(chart.x, x, width, height)}
      ${chart.lines.map(
        (line) => svg`${
          line.range ? svg`<path class="range ${line.look}" d=${area(line.range, x, y)}></path>` : nothing
        }<path class="line ${line.look}" d=${line.pieces.map((piece) => path(piece, x, y)).join("")}></path>${
          line.dots ? svg`<path class="dots ${line.look}" d=${dots(line.dots, x, y)}></path>` : nothing
        }`,
      )}
      ${(chart.marks ?? []).map(({ at, label }) => mark(x(at), label, y, chart.y, width))}
    `,
  );
}

/** A picture with its words. Its size is that of its place; its shape stays. */
export function frame(width: number, height: number, description: string, content: unknown): SVGTemplateResult {
  return svg`<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 ${width} ${height}" width=${width} height=${height}
    role="img" aria-label=${description}>${content}</svg>`;
}

function mark(at: number, label: string, y: Scale, axis: Axis, width: number) {
  const isRight = at > width / 2;
  return svg`<path class="mark" d="M${at.toFixed(1)} ${y(axis.low).toFixed(1)}V${y(axis.high).toFixed(1)}"></path>
    <text class="note" x=${at + (isRight ? -4 : 4)} y=${y(axis.high) + 12} text-anchor=${isRight ? "end" : "start"}>${label}</text>`;
}

export function xAxis(axis: Axis, x: Scale, width: number, height: number): SVGTemplateResult {
  const base = height - BOTTOM;
  return svg`<g class="axis">${x.ticks.map((tick) => {
    const at = x(tick);
    const anchor = at > width - 24 ? "end" : "middle";
    return svg`<path d="M${at.toFixed(1)} ${base}v5"></path><text x=${at.toFixed(1)} y=${base + 17} text-anchor=${anchor}>${axis.show(tick)}</text>`;
  })}<text class="label" x=${width - 12} y=${height - 6} text-anchor="end">${axis.label}</text></g>`;
}

function yAxis(axis: Axis, y: Scale, left: number, width: number): SVGTemplateResult {
  return svg`<g class="axis">${y.ticks.map((tick) => {
    const at = y(tick).toFixed(1);
    return svg`<path class="grid" d="M${left} ${at}H${width - 12}"></path><text x=${left - 6} y=${at} dy="0.35em" text-anchor="end">${axis.show(tick)}</text>`;
  })}<text class="label" x="2" y="12">${axis.label}</text></g>`;
}

const entryWidth = ({ name }: { name: string }) => name.length * LETTER + 44;

function rows(entries: readonly { name: string; look: string }[], width: number) {
  let [at, row] = [2, 0];
  return entries.map((entry) => {
    if (at > 2 && at + entryWidth(entry) > width) [at, row] = [2, row + 1];
    const place = { ...entry, at, row };
    at += entryWidth(entry);
    return place;
  });
}

const LEGEND_ROW = 17;
const named = (entries: readonly { name: string; look: string }[]) => entries.filter(({ name }) => name);

export function legendHeight(entries: readonly { name: string; look: string }[], width: number): number {
  const last = rows(named(entries), width).at(-1);
  return last ? (last.row + 1) * LEGEND_ROW : 0;
}

export function legend(entries: readonly { name: string; look: string }[], width: number, isBox = false): SVGTemplateResult {
  return svg`<g class="legend">${rows(named(entries), width).map(({ name, look, at, row }) => {
    const y = TOP + row * LEGEND_ROW;
    const sign = isBox ? `M${at} ${y - 5}h26v10h-26z` : `M${at} ${y}h26`;
    return svg`<path class="${isBox ? "bar" : "line"} ${look}" d=${sign}></path><text x=${at + 31} y=${y} dy="0.35em">${name}</text>`;
  })}</g>`;
}

function path({ x: xs, y: ys }: Piece, x: Scale, y: Scale): string {
  let text = "";
  for (let at = 0; at < xs.length; at++) {
    text += `${at ? "L" : "M"}${x(xs[at] ?? 0).toFixed(1)} ${y(ys[at] ?? 0).toFixed(1)}`;
  }
  return text;
}

function area({ x: xs, low, high }: NonNullable<Line["range"]>, x: Scale, y: Scale): string {
  const there = path({ x: xs, y: high }, x, y);
  let back = "";
  for (let at = xs.length - 1; at >= 0; at--) back += `L${x(xs[at] ?? 0).toFixed(1)} ${y(low[at] ?? 0).toFixed(1)}`;
  return `${there}${back}Z`;
}

/** Dots are lines of no length with round ends: one element, however many there are. */
function dots({ x: xs, y: ys }: Piece, x: Scale, y: Scale): string {
  let text = "";
  for (let at = 0; at < xs.length; at++) text += `M${x(xs[at] ?? 0).toFixed(1)} ${y(ys[at] ?? 0).toFixed(1)}h0`;
  return text;
}
