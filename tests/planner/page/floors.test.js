// The page's rooms stand on floors: each uses only what lies below it, and there are no circles.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import test from "node:test";

const SOURCE = resolve(import.meta.dirname, "../../../web-planner/src");

/** The lowest first. */
const FLOORS = [
  ["wasm/served", "wasm/inlined", "modules.d", "format", "fields", "files", "remembered", "charts/scale", "live/api"],
  ["charts/lines", "scenario", "address", "live/wire", "live/curves"],
  ["charts/bars", "core", "live/tree"],
  ["assumptions", "live/page"],
  ["picture"],
  ["state", "prediction", "figures/figure", "figures/measure", "live/main"],
  ["figures/alpha", "figures/comparison", "figures/cumulative", "figures/loss", "figures/memory", "figures/rates", "figures/timeline"],
  ["figures/trust", "figures/view", "export"],
  ["import", "form/field"],
  ["form/form"],
  ["page"],
  ["main"],
];

test("each room uses only rooms on floors below its own", () => {
  const floor = new Map(FLOORS.flatMap((rooms, height) => rooms.map((room) => [room, height])));
  const files = readdirSync(SOURCE, { recursive: true }).filter((name) => name.endsWith(".ts"));
  const rooms = files.map((name) => name.slice(0, -".ts".length));
  assert.deepEqual(rooms.sort(), [...floor.keys()].sort());
  let arrows = 0;
  for (const room of rooms) {
    const text = readFileSync(join(SOURCE, `${room}.ts`), "utf8");
    for (const [, from] of text.matchAll(/(?:from|import)\s+"(\.[^"]+)\.ts"/g)) {
      const used = relative(SOURCE, join(SOURCE, dirname(room), from));
      assert.ok(floor.get(used) < floor.get(room), `${room} uses ${used}`);
      arrows++;
    }
  }
  assert.ok(arrows > 80, `${arrows} imports were followed`);
});

test("the arithmetic is asked by few, and nobody else in the page computes with it", () => {
  const asking = readdirSync(SOURCE, { recursive: true })
    .filter((name) => name.endsWith(".ts"))
    .filter((name) => /from "planner"/.test(readFileSync(join(SOURCE, name), "utf8").replace(/import type[^;]+;/g, "")));
  assert.deepEqual(asking, ["core.ts"]);
});
