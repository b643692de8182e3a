// What is shown, in the page's own address: only what differs from the defaults, after a version.

import { DEFAULTS, NAMES, type Draft } from "./fields.ts";

const VERSION = "1";
/** Longer texts are no configuration of a model. */
export const LONGEST_TEXT = 100_000;

export function write(draft: Draft): string {
  const changed = NAMES.filter((name) => draft[name] !== DEFAULTS[name]).map((name): [string, string] => [name, draft[name]]);
  return changed.length ? `#${new URLSearchParams([["v", VERSION], ...changed])}` : "";
}

export interface Found {
  draft: Draft;
  /** What of the address was not understood, in a sentence. */
  notice: string | undefined;
}

export function read(hash: string): Found {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const version = given.get("v");
  if (!hash || hash === "#") return { draft: DEFAULTS, notice: undefined };
  if (version !== VERSION) {
    return { draft: DEFAULTS, notice: `The address is of version ${version ?? "none"} of this page, which knows version ${VERSION}: the defaults are shown.` };
  }
  given.delete("v");
  return patched(DEFAULTS, Object.fromEntries(given), "The address");
}

/** A draft with some of its fields replaced; what is no field is told. */
export function patched(draft: Draft, values: Readonly<Record<string, unknown>>, source: string): Found {
  const changes: Partial<Record<string, string>> = {};
  const unknown: string[] = [];
  for (const [name, value] of Object.entries(values)) {
    const isField = (NAMES as string[]).includes(name);
    if (isField && typeof value === "string" && value.length <= LONGEST_TEXT) changes[name] = value;
    else unknown.push(name.slice(0, 40));
  }
  const notice = unknown.length ? `${source} has what this page does not know, and leaves out: ${unknown.slice(0, 5).join(", ")}.` : undefined;
  return { draft: { ...draft, ...changes }, notice };
}
