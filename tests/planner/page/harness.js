// A page under test: what it asks for and complains about is kept, and a test that leaves a complaint fails.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { after, before } from "node:test";
import { pathToFileURL } from "node:url";

import { folder, launch, serve } from "../browser.js";

const root = resolve(import.meta.dirname, "../../..");
export const DIST = process.env.LRPATH_PAGE ?? join(root, "web-planner/dist");
export const SCREENSHOTS = join(root, "target/planner/screenshots");
const SERVED = ["index.html", "planner.js", "planner.css", "planner.wasm"];

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
let server;
before(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  browser = await launch();
  server = await serve(folder(DIST, SERVED));
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** axe finds nothing to complain about. */
export async function clean(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  const words = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  assert.deepEqual(words, []);
}

/** Where the page is, as one file and behind a server. */
export const PLACES = {
  file: () => pathToFileURL(join(DIST, "lrpath-planner.html")).href,
  served: () => `${server.address}/`,
};

/** Opens the planner, gives it to the test, and holds it against what every page must keep. */
export async function opened(test, { at = "file", hash = "", ...options } = {}) {
  await openedAt(PLACES[at]() + hash, async (page, kept) => {
    await drawn(page);
    await test(page, kept);
  }, options);
}

/** Opens any page likewise. */
export async function openedAt(address, test, { width = 1280, scheme = "light", complaints = 0 } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: scheme,
    reducedMotion: "reduce",
    acceptDownloads: true,
  });
  const page = await context.newPage();
  const requests = [];
  const said = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && said.push(message.text()));
  page.on("pageerror", (error) => said.push(error.stack));
  try {
    await page.goto(address);
    await test(page, { requests, said });
    const [own] = address.split("#");
    const foreign = requests.filter((url) => !url.startsWith(own) && !/^(data|blob):/.test(url));
    assert.deepEqual(foreign, [], "no request leaves the page");
    assert.equal(said.length, complaints, said.join("\n"));
  } finally {
    await context.close();
  }
}

/** Waits for a question to be answered with yes; under the page's own policy, Playwright's way to wait is refused. */
export async function until(page, question, ...given) {
  for (let tries = 0; tries < 200; tries++) {
    if (await page.evaluate(question, ...given)) return;
    await page.waitForTimeout(25);
  }
  assert.fail(`it never came: ${question}`);
}

/** Waits until what was set is drawn. */
export async function drawn(page) {
  await until(page, () => document.querySelector("figure") !== null || document.querySelector("[role=alert]:not([hidden])") !== null);
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await until(page, () => document.querySelector(".results")?.getAttribute("aria-busy") !== "true");
}

/** Puts a value into a field, as typing does. */
export async function set(page, name, value) {
  const field = page.locator(`#f-${name}`);
  await field.evaluate((input) => input.closest("details")?.setAttribute("open", ""));
  const kind = await field.evaluate((input) => (input.type === "checkbox" ? "checkbox" : input.tagName));
  if (kind === "SELECT") await field.selectOption(value);
  else if (kind === "checkbox") await field.setChecked(value === "yes");
  else await field.fill(value);
  await drawn(page);
}

export const summary = (page) => page.locator(".summary").innerText();
export const problems = (page) => page.locator(".problems[role=alert]").innerText();

/** The rows of a figure's table, opened first where it is folded. */
export async function table(page, id) {
  await page.evaluate((id) => document.querySelector(`#${id} details`)?.setAttribute("open", ""), id);
  await until(page, (id) => document.querySelector(`#${id} table`) !== null, id);
  return page
    .locator(`#${id} table tr`)
    .evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim())));
}

/** What a button gives as a file. */
export async function downloaded(page, button) {
  // A browser gives a page ten files a second, and drops the eleventh.
  await page.waitForTimeout(120);
  const [download] = await Promise.all([page.waitForEvent("download"), button.click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  return { name: download.suggestedFilename(), text: Buffer.concat(chunks).toString("utf8") };
}

/** Opens a text as a file of the page's. */
export async function openFile(page, text, name = "plan.json") {
  await page.locator("header input[type=file]").setInputFiles({ name, mimeType: "application/json", buffer: Buffer.from(text) });
  await page.waitForTimeout(100);
  await drawn(page);
}
