// The version tree as the method's paper draws it: the main path above, at its rate for ever; from it each version's
// branch falls to its end.

import { svg, type SVGTemplateResult } from "lit-html";

import { frame, legend, xAxis } from "../charts/lines.ts";
import { linear } from "../charts/scale.ts";
import { count, short } from "../format.ts";
import type { Branches, Version } from "./api.ts";

const LEFT = 14;
const RIGHT = 56;
const TOP = 62;
const BOTTOM = 40;
const ROW = 14;
/** Pixels of a letter, where it is bold. */
const LETTER = 7.6;
/** Pixels between two names at least. */
const APART = 8;
/** Pixels between two branches below which their dashes would run into each other. */
const DENSE = 6;

export function treeChart({ paradigm, main, versions }: Branches, width: number): SVGTemplateResult {
  const ends = versions.map(({ end }) => end);
  const furthest = Math.max(main?.reached ?? 0, ...ends, 1);
  const height = 250;
  const x = linear(0, furthest, LEFT, width - RIGHT, Math.max(2, Math.floor(width / 110)));
  const high = TOP;
  const low = height - BOTTOM - 2 * ROW - 10;
  const look = paradigm === "path-switching" ? "branch" : paradigm;
  const density = versions.length * DENSE > width ? "dense" : "";
  const at = (version: Version, step: number) => {
    const { branch_point: from, end } = version;
    const share = (Math.min(step, end) - from) / Math.max(1, end - from);
    return `${x(Math.min(step, end)).toFixed(1)} ${(high + share * (low - high)).toFixed(1)}`;
  };
  const fall = (version: Version, from: number, to: number) => `M${at(version, from)}L${at(version, to)}`;
  const done = (version: Version) => Math.max(version.branch_point, version.reached ?? 0);
  const pathOf = (chosen: (version: Version) => string) => versions.map(chosen).join("");
  const dots = (isChosen: (version: Version) => boolean) => versions.filter(isChosen).map((version) => `M${at(version, version.end)}h0`).join("");
  const released = (version: Version) => version.state === "released";
  const broken = ({ state }: Version) => state === "failed";
  const entries = [
    ...(main ? [{ name: "main path", look: "main" }] : []),
    { name: main ? "branches" : "runs", look },
    ...(versions.some((version) => done(version) < version.end) || main ? [{ name: "to come", look: "to-come" }] : []),
  ];
  return frame(
    width,
    height,
    describe(versions, main?.reached),
    svg`${legend(entries, width)}
      ${xAxis({ label: "steps", low: 0, high: furthest, show: short }, x, width, height)}
      <path class="line to-come" d=${pathOf((version) => fall(version, done(version), version.end))}></path>
      ${main ? svg`<path class="line to-come" d="M${x(main.reached).toFixed(1)} ${high}H${x(furthest).toFixed(1)}"></path>
        <path class="line main" d="M${x(0).toFixed(1)} ${high}H${x(main.reached).toFixed(1)}"></path>
        <path class="dots main" d="M${x(main.reached).toFixed(1)} ${high}h0"></path>
        <text class="note" x=${x(main.reached) + 7} y=${high} dy="0.35em">${short(main.reached)}</text>` : svg``}
      <path class="line ${look} ${density}" d=${pathOf((version) => fall(version, version.branch_point, done(version)))}></path>
      <path class="dots ${look}" d=${dots(released)}></path>
      <path class="dots failed" d=${dots(broken)}></path>
      ${names(versions, x, low, width)}`,
  );
}

/** The names below the ends, in two rows, as many as there is room for, from the newest on. */
function names(versions: readonly Version[], x: (step: number) => number, low: number, width: number): SVGTemplateResult[] {
  const free = [Infinity, Infinity];
  const placed: SVGTemplateResult[] = [];
  for (const version of [...versions].reverse()) {
    const half = (version.name.length * LETTER) / 2;
    const middle = Math.max(half, Math.min(width - half, x(version.end)));
    const row = free.findIndex((begin) => middle + half + APART <= begin);
    if (row < 0) continue;
    free[row] = middle - half;
    const style = version.state === "released" ? "note strong" : "note";
    placed.push(svg`<text class=${style} x=${middle.toFixed(1)} y=${low + 18 + row * ROW} text-anchor="middle">${version.name}</text>`);
  }
  return placed;
}

function describe(versions: readonly Version[], reached: number | undefined): string {
  const released = versions.filter(({ state }) => state === "released").length;
  const main = reached === undefined ? "" : `The main path has come to step ${count(reached)}. `;
  return `${main}${versions.length} versions, ${released} of them released.`;
}
