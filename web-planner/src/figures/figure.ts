// What every figure has: a picture, the numbers behind it, and the formulas with these numbers filled in.

import type { SVGTemplateResult } from "lit-html";

import type { Picture } from "../picture.ts";

export interface Column {
  name: string;
  /** How its numbers are read; in a file they stand in full. */
  show?: (value: number) => string;
}

export type Cell = string | number | undefined;

export interface Table {
  columns: readonly Column[];
  rows: readonly (readonly Cell[])[];
}

export interface Formula {
  /** What it gives. */
  name: string;
  /** With letters, then with numbers. */
  text: string;
}

export interface Figure {
  /** In addresses and names of files. */
  id: string;
  title: string;
  /** What to see, in a sentence or two. */
  caption: (picture: Picture) => string;
  chart?: (picture: Picture, width: number) => SVGTemplateResult;
  table: (picture: Picture) => Table;
  formulas?: (picture: Picture) => readonly Formula[];
}

export function shown(column: Column | undefined, cell: Cell): string {
  if (cell === undefined) return "–";
  return typeof cell === "number" ? (column?.show ?? String)(cell) : cell;
}

/** RFC 4180. Numbers stand in full, under a name that has their unit. */
export function csv({ columns, rows }: Table): string {
  const cell = (value: string | number | undefined) => {
    const text = value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map(({ name }) => name), ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
