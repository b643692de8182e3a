// The daemon's live page, with a daemon behind it that is made to work, killed and started again.

import assert from "node:assert/strict";
import { join } from "node:path";
import test, { after, before } from "node:test";

import { Project } from "../project.js";
import { clean, openedAt, SCREENSHOTS, until } from "./harness.js";

let project;
before(async () => {
  project = await Project.live();
  await project.start();
});
after(() => project?.remove());

const looked = (use, options) => openedAt(project.address, use, options);
const text = (page, selector) => page.locator(selector).innerText();
const says = (page, selector, words) =>
  until(page, ({ selector, words }) => document.querySelector(selector)?.innerText.includes(words) ?? false, { selector, words });
const versions = (page) => page.locator("#tree-path-switching tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText)));

test("the tree grows as versions come, and nothing is asked of anybody but the daemon", async () => {
  await looked(async (page) => {
    await says(page, ".doing", "Waits for shards");
    assert.match(await text(page, "#tree-path-switching"), /No increment is closed yet/);
    for (const [place, name] of ["january", "february"].entries()) {
      await project.drop(`${name}.txt`, 900);
      await says(page, "#inbox", `${name}.txt`);
      project.cut(name);
      await project.released(place + 1);
      await until(page, (count) => document.querySelectorAll("#tree-path-switching tbody tr").length === count, place + 1);
      await until(page, (name) => document.querySelector("#tree-path-switching tbody tr")?.innerText.includes("released") && document.querySelector("#tree-path-switching svg").textContent.includes(name), name);
    }
    const known = project.ask("versions");
    const rows = await versions(page);
    assert.deepEqual(rows.map(([name]) => name), ["february", "january"]);
    assert.deepEqual(rows.map(([, , , point]) => Number(point.replaceAll(",", ""))), known.map(({ branch_point }) => branch_point).reverse());
    assert.match(rows[0][6], /releases\/v2 \(latest\)/);
    const { steps } = project.ask("status").paradigms["path-switching"];
    await says(page, "#tree-path-switching .facts", steps.executed.toLocaleString("en-US"));
    await page.screenshot({ path: join(SCREENSHOTS, "live-tree.png"), fullPage: true });
  });
});

test("curves move while a job runs, and what was before the page was opened is in them", async () => {
  await project.drop("long.txt", 60_000);
  await until_job(project, 200);
  await looked(async (page) => {
    await until(page, () => document.querySelectorAll(".job .line.loss").length === 1);
    const first = await page.evaluate(() => Number(document.querySelector(".job progress").value));
    const drawn = () => page.evaluate(() => document.querySelector(".job .line.loss").getAttribute("d"));
    const points = (await drawn()).split("L").length;
    assert.ok(points > 5, `${points} points before anything was heard`);
    await until(page, (first) => Number(document.querySelector(".job progress")?.value) > first, first);
    const before = await drawn();
    await until(page, (before) => document.querySelector(".job .line.loss")?.getAttribute("d") !== before, before);
    assert.match(await text(page, ".job"), /Job \d+: the main path ahead/);
    assert.match(await text(page, ".job .facts"), /loss\s+\d\.\d{3}\s+learning rate\s+3e-4/);
    await page.screenshot({ path: join(SCREENSHOTS, "live-job.png"), fullPage: true });
    await clean(page);
  });
});

async function until_job(project, step) {
  for (let tries = 0; tries < 400; tries++) {
    if (project.ask("status").jobs.some((job) => job.step > step)) return;
    await new Promise((later) => setTimeout(later, 50));
  }
  assert.fail("no job has come so far");
}

test("a pause, a file that cannot be read and one whose name is a trap are told as they are", async () => {
  const trap = "<img src=x onerror=alert(1)>.jsonl";
  project.ask("pause");
  project.put(trap, '{"text": 1}\n');
  try {
    await looked(async (page) => {
      await says(page, ".doing", "paused");
      await says(page, "#inbox", trap);
      assert.equal(await page.locator("#inbox img").count(), 0);
      await page.screenshot({ path: join(SCREENSHOTS, "live-paused.png"), fullPage: true });
    });
  } finally {
    project.ask("resume");
  }
});

test("a connection that is lost is shown, and heals by itself", async () => {
  await looked(async (page, { said }) => {
    await says(page, "h1", "lrpathd");
    await until(page, () => document.querySelector(".doing") !== null);
    assert.equal(await page.locator("[role=alert]").count(), 0);
    await project.stop("SIGKILL");
    await until(page, () => document.querySelector("[role=alert]")?.innerText.startsWith("lrpathd is not heard"));
    assert.match(await text(page, "[role=alert]"), /What stands here is of \d/);
    assert.equal(await page.locator("#tree-path-switching tbody tr").count(), 2, "what was known stays");
    await page.screenshot({ path: join(SCREENSHOTS, "live-lost.png"), fullPage: true });
    await clean(page);
    await project.start();
    await until(page, () => document.querySelector("[role=alert]") === null);
    await project.drop("after.txt", 900);
    await says(page, "#inbox", "after.txt");
    // A browser says by itself that nobody answers.
    const unexpected = said.filter((words) => !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/.test(words));
    assert.deepEqual(unexpected, []);
    said.length = 0;
  });
});

test("GPUs are shown where there are any, as far as their driver tells", async () => {
  await looked(async (page) => {
    await says(page, "#machine", "cpu");
    assert.equal(await page.locator("#machine table").count(), 1, "none are there");
  });
  await project.stop();
  project.pretend_gpus();
  await project.start();
  await looked(async (page) => {
    await says(page, "#machine", "Pretended GPU");
    const rows = await page.locator("#machine table").nth(1).locator("tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText)));
    assert.deepEqual(rows, [
      ["0", "Pretended GPU", "1.5 GB of 80 GB", "87 %"],
      ["1", "Pretended GPU", "3 GB of 80 GB", "–"],
    ]);
  });
});

for (const [look, options] of Object.entries({
  "live-light": {},
  "live-dark": { scheme: "dark" },
  "live-narrow": { width: 320 },
})) {
  test(`${look}: axe finds nothing, and nothing is wider than the window`, async () => {
    await looked(async (page) => {
      await says(page, "#tree-path-switching", "january");
      await page.waitForTimeout(300);
      await page.screenshot({ path: join(SCREENSHOTS, `${look}.png`), fullPage: true });
      await clean(page);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    }, options);
  });
}

test("its policy lets nothing else in, and the planner lies beside it", async () => {
  await looked(async (page) => {
    const policy = await page.locator("meta[http-equiv=Content-Security-Policy]").getAttribute("content");
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    await page.getByRole("link", { name: "Plan a budget" }).click();
    await until(page, () => document.querySelector("figure") !== null);
    assert.equal(await page.title(), "lrpath planner");
  });
});
