// What the page gives away can be used: by itself, by spreadsheets, by browsers, and by lrpathd.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { lrpathctl, Project } from "../project.js";
import { downloaded, openFile, opened, SCREENSHOTS, set, summary, table, until } from "./harness.js";

const button = (page, name) => page.getByRole("button", { name, exact: true });

test("a plan as JSON comes back as it was", async () => {
  let [text, before] = ["", ""];
  await opened(async (page) => {
    for (const [name, value] of Object.entries({ model: "qwen3-8b", versions: "9", alpha: "0.42", device: "b200-sxm", devices: "32", zero: "weights" })) {
      await set(page, name, value);
    }
    before = await page.locator(".pictures").innerText();
    ({ text } = await downloaded(page, button(page, "Plan as JSON")));
    const { results, ...rest } = JSON.parse(text);
    assert.deepEqual(rest, {
      format: "lrpath-planner",
      version: 1,
      set: { model: "qwen3-8b", versions: "9", alpha: "0.42", device: "b200-sxm", devices: "32", zero: "weights" },
    });
    const ours = results.paradigms["path-switching"];
    const plan = JSON.parse(lrpathctl("plan", "--increments", results.increments.map(({ steps }) => steps).join(","), "--alpha", "0.42", "--json"));
    assert.equal(ours.steps, plan.paradigms["path-switching"].steps);
    assert.equal(ours.ratio, plan.paradigms["path-switching"].ratio);
    assert.deepEqual(ours.segments, plan.paradigms["path-switching"].segments);
  });
  await opened(async (page) => {
    await openFile(page, text);
    assert.equal(await page.locator(".pictures").innerText(), before);
  });
});

test("each picture is an SVG that stands alone, each table a CSV with whole numbers", async () => {
  await opened(async (page) => {
    // A page of its own, under no policy, as any reader of SVG is.
    const reader = await page.context().newPage();
    await set(page, "sizes", "list");
    await set(page, "list", 'the "first", one 10.5B\nsecond 12B'.replace(", one", ""));
    const ids = await page.locator("figure").evaluateAll((figures) => figures.map(({ id }) => id));
    assert.deepEqual(ids, [
      "costs",
      "learning-rates",
      "cumulative",
      "alpha",
      "timeline",
      "latency",
      "memory",
      "inputs",
      "published-runs",
      "devices",
    ]);
    for (const id of ids) {
      const { name, text } = await downloaded(page, page.locator(`#${id} button`, { hasText: "CSV" }));
      assert.equal(name, `lrpath-${id}.csv`);
      const lines = text.trimEnd().split("\r\n");
      assert.ok(lines.length > 1, id);
      const svg = page.locator(`#${id} button`, { hasText: "SVG" });
      if (!(await svg.count())) continue;
      const drawing = await downloaded(page, svg);
      assert.doesNotMatch(drawing.text, /light-dark|var\(|<!--|NaN|undefined/, id);
      const root = await reader.evaluate((text) => {
        const document = new DOMParser().parseFromString(text, "image/svg+xml");
        return [document.querySelector("parsererror")?.textContent, document.documentElement.localName, document.querySelector("title")?.textContent];
      }, drawing.text);
      assert.equal(root[0], undefined);
      assert.equal(root[1], "svg");
      assert.ok(root[2]);
      await reader.setContent(drawing.text);
      await reader.screenshot({ path: join(SCREENSHOTS, `file-${id}.png`) });
    }
    const { text } = await downloaded(page, page.locator("#cumulative button", { hasText: "CSV" }));
    assert.match(text, /^"?version/);
    assert.ok(text.includes('"the ""first"""'), text);
  });
});

test("the quotable text has what the numbers stand on", async () => {
  await opened(async (page) => {
    const text = await page.locator("#citation").inputValue();
    assert.match(text, /4 versions .* alpha = 0\.6, take 58,000 steps of 1,048,576 tokens, 58 % of what from-scratch training takes/);
    assert.match(text, /arXiv 2410\.04103/);
    assert.match(text, /H100 SXM at 40 % MFU/);
  });
});

test("lrpathctl accepts the configuration of every plan", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lrpath-page-"));
  try {
    await opened(async (page) => {
      const plans = [
        {},
        { model: "tinyllama-1.1b", alpha: "0.25", decay: "multi-step", warmup_steps: "100", branch_points: "5" },
        { model: "llama-3-8b", decay: "exponential", hold: "0.3", paradigm: "from-scratch", versions: "2" },
        { paradigm: "continual", rewarmup_steps: "20", peak: "1e-3", min: "1e-5", sequence_length: "512", sequences_per_step: "64" },
        { sizes: "list", list: "a name = x 10B\n20B", decay: "knee", warmup_steps: "7" },
      ];
      for (const [place, plan] of plans.entries()) {
        await button(page, "Start over").click();
        for (const [name, value] of Object.entries(plan)) await set(page, name, value);
        const into = join(folder, String(place));
        mkdirSync(into);
        for (const name of ["lrpathd.toml", "config.json"]) {
          const file = await downloaded(page, button(page, name));
          assert.equal(file.name, name);
          writeFileSync(join(into, name), file.text);
        }
        const { config } = JSON.parse(lrpathctl("config", "check", join(into, "lrpathd.toml"), "--json"));
        const { schedule, data, cut, paradigm, retention } = config;
        const wanted = { alpha: "0.6", decay: "cosine", warmup_steps: "2000", peak: "3e-4", min: "3e-5", rewarmup_steps: "0", ...plan };
        for (const key of ["alpha", "warmup_steps", "peak", "min", "rewarmup_steps"]) assert.equal(schedule[key], Number(wanted[key]), key);
        assert.equal(schedule.decay, wanted.decay);
        assert.equal(data.sequence_length, Number(plan.sequence_length ?? 2048));
        assert.equal(data.sequences_per_step, Number(plan.sequences_per_step ?? 512));
        assert.equal([paradigm].flat()[0], plan.paradigm ?? "path-switching");
        assert.equal(retention.branch_points, Number(plan.branch_points ?? 2));
        const sizes = (await table(page, "cumulative")).slice(1).map((row) => Number(row[1].replaceAll(",", "")));
        const isEqual = new Set(sizes).size === 1;
        if (isEqual) assert.equal(Math.floor(cut.every_tokens / data.sequence_length / data.sequences_per_step), sizes[0]);
      }
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a running project's export shows what it has cost and what its next versions will", async () => {
  const project = new Project();
  try {
    await project.start();
    for (const [place, name] of ["january", "february"].entries()) {
      await project.drop(`${name}.txt`, 900);
      project.cut(name);
      await project.released(place + 1);
    }
    const file = join(project.folder, "project.json");
    assert.match(lrpathctl("export", file, "--state", project.state), /holds 2 increments/);
    const exported = JSON.parse(readFileSync(file, "utf8"));
    await opened(async (page) => {
      await openFile(page, JSON.stringify(exported));
      const rows = (await table(page, "cumulative")).slice(1);
      assert.deepEqual(rows.map(([name]) => name), ["january", "february", "next-1", "next-2", "next-3", "next-4"]);
      assert.deepEqual(rows.slice(0, 2).map(([, steps]) => Number(steps)), exported.increments.map(({ steps }) => steps));
      assert.equal(await page.locator("#f-made").inputValue(), "2");
      assert.equal(await page.locator("#f-alpha").inputValue(), "0.5");
      assert.equal(await page.locator("#f-speed").inputValue(), "measured");
      assert.match(await summary(page), /are behind you with 2 versions, and .* are to come with 4/);
      const hours = exported.spent.time / 3_600_000;
      const [, said] = /([\d.e× ⁻⁰-⁹]+) device-hours were spent so far, as measured/.exec(await summary(page)) ?? [];
      assert.ok(said, await summary(page));
      assert.ok(Math.abs(Number(await page.locator("#f-spent").inputValue()) / hours - 1) < 1e-4);
      await until(page, () => location.hash.includes("january"));
    });
  } finally {
    await project.remove();
  }
});
