// The planner's arithmetic in Node and in Chromium: `node run.js PLANNER VECTORS NATIVE`.
//
// PLANNER is the folder of planner.js and planner_bg.wasm, VECTORS that of the golden cases, and NATIVE the numbers that a
// native program computes of them. Nothing is fetched but from a server of our own on the loopback.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { folder, launch, serve } from "./browser.js";
import { golden } from "./golden.js";
import { refusals } from "./refusals.js";

const [planner, vectors, native] = process.argv.slice(2).map((path) => resolve(path));
const here = import.meta.dirname;
const cases = Object.fromEntries(
  ["plans", "schedules", "models", "loss_laws"].map((name) => [
    name,
    JSON.parse(readFileSync(join(vectors, `${name}.json`), "utf8")),
  ]),
);
const expected = readFileSync(native);

function check(where, { numbers, wrong }) {
  assert.deepEqual(wrong, [], where);
  const found = Buffer.from(Float64Array.from(numbers).buffer);
  assert.equal(found.length, expected.length, `${where}: as many numbers as the native program has`);
  for (let at = 0; at < found.length; at += 8) {
    const [ours, theirs] = [found, expected].map((bytes) => bytes.readBigUInt64LE(at));
    assert.equal(ours, theirs, `${where}, number ${at / 8}: ${found.readDoubleLE(at)}, not ${expected.readDoubleLE(at)}`);
  }
  console.log(`${where}: ${numbers.length} numbers, all to the bit`);
}

async function inNode() {
  const module = await import(pathToFileURL(join(planner, "planner.js")));
  module.initSync({ module: readFileSync(join(planner, "planner_bg.wasm")) });
  check("node", golden(module, cases));
  refusals(module);
  console.log("node: every refusal names its field");
}

async function inChromium() {
  const empty = join(here, "empty.html");
  const files = { "/": empty, "/golden.js": join(here, "golden.js") };
  const server = await serve((asked) => files[asked] ?? folder(planner, ["planner.js", "planner_bg.wasm"])(asked));
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(server.address);
    const found = await page.evaluate(async (cases) => {
      const planner = await import("/planner.js");
      await planner.default({ module_or_path: "/planner_bg.wasm" });
      return (await import("/golden.js")).golden(planner, cases);
    }, cases);
    check("chromium", found);
  } finally {
    await browser.close();
    server.close();
  }
}

await inNode();
await inChromium();
