// What is set is what is computed: by keyboard, through the address, back and forth, and to the numbers of lrpathctl.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import test from "node:test";

import { drawn, opened, problems, set, summary, table, until } from "./harness.js";

const BIN = process.env.LRPATH_BIN ?? resolve(import.meta.dirname, "../../../target/release");
const number = (text) => Number(text.replace(/[^\d.]/g, ""));

test("the slider goes by keyboard, and the number with it", async () => {
  await opened(async (page) => {
    await page.locator("input[type=range][name=alpha]").focus();
    for (let step = 0; step < 10; step++) await page.keyboard.press("ArrowRight");
    await drawn(page);
    assert.equal(await page.locator("#f-alpha").inputValue(), "0.7");
    // (1 + alpha) T N - alpha T against T N (N + 1) / 2.
    assert.match(await summary(page), /take 61,000 steps: 61 % of the 100,000/);
    await page.keyboard.press("Home");
    await drawn(page);
    assert.equal(await page.locator("#f-alpha").inputValue(), "0.01");
    // What came out is also said, once it stays.
    await until(page, () => /40,300 steps/.test(document.getElementById("status").textContent));
  });
});

test("every field is reached by the tabulator alone", async () => {
  await opened(async (page) => {
    const reached = new Set();
    await page.locator("body").click({ position: { x: 1, y: 1 } });
    for (let press = 0; press < 160; press++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement?.getAttribute("name") ?? document.activeElement?.textContent));
    }
    for (const name of ["model", "versions", "tokens", "alpha", "decay", "device", "price", "pue_high", "paradigm", "SVG"]) {
      assert.ok(reached.has(name), name);
    }
  });
});

test("the address holds what is shown, and nothing else", async () => {
  const changes = {
    model: "llama-3-8b",
    sizes: "list",
    list: "january 2B\nfebruary 3B; 4000M",
    alpha: "0.35",
    decay: "linear",
    warmup_steps: "50",
    device: "h200-sxm",
    devices: "16",
    slots: "2",
    price: "2.5",
    price_high: "3",
    ahead: "no",
    zero: "weights",
    measure: "energy",
  };
  let [hash, before] = ["", ""];
  await opened(async (page) => {
    assert.equal(await page.evaluate(() => location.hash), "");
    for (const [name, value] of Object.entries(changes)) await set(page, name, value);
    await until(page, () => location.hash.includes("measure=energy"));
    hash = await page.evaluate(() => location.hash);
    assert.deepEqual(Object.fromEntries(new URLSearchParams(hash.slice(1))), { v: "1", ...changes });
    before = await page.locator(".results").innerText();
  });
  for (const at of ["file", "served"]) {
    await opened(
      async (page) => {
        for (const [name, value] of Object.entries(changes)) {
          const field = page.locator(`#f-${name}`);
          const found = await field.evaluate((input) => (input.type === "checkbox" ? (input.checked ? "yes" : "no") : input.value));
          assert.equal(found, value, name);
        }
        assert.equal(await page.locator(".results").innerText(), before);
      },
      { hash, at },
    );
  }
});

test("an address that is none is told, and one of another version", async () => {
  await opened(async (page) => assert.match(await problems(page), /of version 9 of this page/), { hash: "#v=9&alpha=0.5" });
  await opened(
    async (page) => {
      assert.match(await problems(page), /leaves out: colour/);
      assert.equal(await page.locator("#f-alpha").inputValue(), "0.5");
    },
    { hash: "#v=1&colour=red&alpha=0.5" },
  );
  await opened(async (page) => assert.match(await problems(page), /Alpha: “loud” is no number/), { hash: "#v=1&alpha=loud" });
});

test("undo and redo, by button and by key", async () => {
  await opened(async (page) => {
    await set(page, "versions", "6");
    await set(page, "alpha", "0.5");
    const undo = page.getByRole("button", { name: "Undo" });
    await undo.click();
    await drawn(page);
    assert.equal(await page.locator("#f-alpha").inputValue(), "0.6");
    assert.equal(await page.locator("#f-versions").inputValue(), "6");
    await page.locator("h1").click();
    await page.keyboard.press("Control+z");
    await drawn(page);
    assert.equal(await page.locator("#f-versions").inputValue(), "4");
    assert.ok(await undo.isDisabled());
    await page.keyboard.press("Control+Shift+z");
    await page.getByRole("button", { name: "Redo" }).click();
    await drawn(page);
    assert.equal(await page.locator("#f-alpha").inputValue(), "0.5");
  });
});

test("steps are those of lrpathctl plan, also for a list with what is left over", async () => {
  await opened(async (page) => {
    await set(page, "sizes", "list");
    await set(page, "sequence_length", "100");
    await set(page, "sequences_per_step", "10");
    await set(page, "warmup_steps", "2");
    await set(page, "list", "10500, 20600\n7900");
    // Whole steps of 1,000 tokens so far: 10, 31, 39.
    const rows = await table(page, "cumulative");
    assert.deepEqual(rows.slice(1).map((row) => row[1]), ["10", "21", "8"]);
    const plan = ["plan", "--increments", "10,21,8", "--alpha", "0.6", "--json"];
    const { paradigms } = JSON.parse(execFileSync(join(BIN, "lrpathctl"), plan, { encoding: "utf8" }));
    const costs = await table(page, "costs");
    assert.deepEqual(
      costs.find(([name]) => name === "steps").slice(1).map(number),
      ["path-switching", "from-scratch", "continual"].map((paradigm) => paradigms[paradigm].steps),
    );
    const segments = await table(page, "learning-rates");
    assert.equal(segments.length - 1, Object.values(paradigms).reduce((sum, { segments }) => sum + segments.length, 0));
  });
});

test("a measured speed, prices and powers give what they give by hand", async () => {
  await opened(async (page) => {
    for (const [name, value] of Object.entries({
      speed: "measured",
      tokens_per_second: "10000",
      price: "2",
      power: "500",
      pue: "1.5",
      carbon: "0.2",
    })) {
      await set(page, name, value);
    }
    const rows = Object.fromEntries((await table(page, "costs")).map(([name, ours]) => [name, ours]));
    // 58,000 steps of 1,048,576 tokens.
    const hours = (58_000 * 1_048_576) / 10_000 / 3600;
    for (const [name, expected] of Object.entries({
      "device-hours": hours,
      money: hours * 2,
      "energy, kWh": hours * 0.5 * 1.5,
      "carbon, kg CO₂": hours * 0.5 * 1.5 * 0.2,
    })) {
      assert.ok(!rows[name].includes("("), `${name}: what is known has no range: ${rows[name]}`);
      assert.ok(Math.abs(number(rows[name]) / expected - 1) < 0.006, `${name}: ${rows[name]}, not ${expected}`);
    }
    await set(page, "price_low", "1");
    await set(page, "price_high", "8");
    const [, , , , , , money] = await table(page, "costs");
    assert.match(money[1], /\(\$\d[\d,]* to \$\d[\d,]*\)/);
  });
});

test("a law's losses come with their range and the warning, and parameters can be pasted", async () => {
  await opened(async (page) => {
    await set(page, "law", "tissue");
    await until(page, () => document.querySelector("#loss svg") !== null);
    assert.match(await page.locator("#loss figcaption").innerText(), /do not take the lowest point for the best/);
    const published = await table(page, "loss");
    await page.locator("#pasted-law").fill('{"multi-power": {"L0": 2.79, "A": 0.59, "a": 0.46, "B": 521.4, "C": 0.24, "beta": 0.6, "gamma": 0.65}}');
    await page.locator("#pasted-law").press("Enter");
    await until(page, () => document.querySelector("#f-law").value === "multi-power");
    await until(page, (first) => document.querySelector("#loss tbody td:nth-child(4)")?.innerText !== first, published[1][3]);
    const losses = (await table(page, "loss")).slice(1).map((row) => row.slice(3, 6).map(Number));
    assert.ok(losses.length > 5 && losses.every(([loss, low, high]) => low < loss && loss < high));
    await page.locator("#pasted-law").fill('{"chinchilla": {}}');
    await page.locator("#pasted-law").press("Enter");
    await drawn(page);
    assert.match(await problems(page), /neither "tissue" nor "multi-power"/);
  });
});
