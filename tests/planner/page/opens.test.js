// The page opens from a server and from a disk, keeps its policy, and can be read by everybody.

import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";

import { clean, drawn, opened, PLACES, SCREENSHOTS, set, summary, table } from "./harness.js";


test("from a disk it is one request, behind a server its own four files", async () => {
  await opened(async (page, { requests }) => {
    assert.match(await summary(page), /^4 versions by path switching take 58,000 steps: 58 % of the 100,000 from scratch/);
    assert.deepEqual(requests.filter((url) => !/^(data|blob):/.test(url)), [PLACES.file()]);
  });
  await opened(
    async (page, { requests }) => {
      assert.match(await summary(page), /58,000 steps/);
      const own = requests.filter((url) => !/^(data|blob):/.test(url)).map((url) => url.slice(PLACES.served().length));
      assert.deepEqual(own.sort(), ["", "planner.css", "planner.js", "planner.wasm"]);
    },
    { at: "served" },
  );
});

test("both show the same", async () => {
  const seen = [];
  for (const at of ["file", "served"]) await opened(async (page) => seen.push(await page.locator(".results").innerText()), { at });
  assert.equal(seen[0], seen[1]);
});

test("the policy holds: no foreign script, no style, no request", async () => {
  for (const at of ["file", "served"]) {
    await opened(
      async (page, { said }) => {
        const found = await page.evaluate(async () => {
          const script = document.createElement("script");
          script.textContent = "window.wasRun = true";
          document.head.append(script);
          const style = document.createElement("style");
          style.textContent = "body { color: rgb(1, 2, 3) }";
          document.head.append(style);
          const answer = await fetch("http://127.0.0.1:9/").then(
            () => "came",
            () => "refused",
          );
          setTimeout("window.wasRun = true");
          await new Promise((later) => setTimeout(later, 50));
          return { wasRun: window.wasRun, color: getComputedStyle(document.body).color, answer };
        });
        assert.equal(found.wasRun, undefined);
        assert.notEqual(found.color, "rgb(1, 2, 3)");
        assert.equal(found.answer, "refused");
        const violations = said.filter((text) => /Content Security Policy/.test(text)).length;
        assert.ok(violations >= 4, said.join("\n"));
        said.length = 0;
      },
      { at },
    );
  }
});

for (const [look, options] of Object.entries({
  light: {},
  dark: { scheme: "dark" },
  "narrow-light": { width: 320 },
  "narrow-dark": { width: 320, scheme: "dark" },
})) {
  test(`${look}: axe finds nothing, also with everything open and with something wrong`, async () => {
    await opened(async (page) => {
      await set(page, "law", "tissue");
      await page.waitForTimeout(800);
      await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
      await drawn(page);
      await page.screenshot({ path: join(SCREENSHOTS, `${look}.png`), fullPage: true });
      await clean(page);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the window");
      await set(page, "alpha", "0");
      await page.screenshot({ path: join(SCREENSHOTS, `${look}-wrong.png`) });
      await clean(page);
    }, options);
  });
}

test("on paper there are results and no form, and every table is open", async () => {
  await opened(async (page) => {
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    await page.emulateMedia({ media: "print", colorScheme: "light" });
    await drawn(page);
    assert.equal(await page.locator(".inputs-side").isVisible(), false);
    assert.equal(await page.locator("nav").isVisible(), false);
    assert.ok(await page.locator("#cumulative table").isVisible());
    assert.ok(await page.locator("#inputs table").isVisible());
    await page.screenshot({ path: join(SCREENSHOTS, "print.png"), fullPage: true });
    await page.evaluate(() => dispatchEvent(new Event("afterprint")));
    await page.emulateMedia({ media: "screen" });
    await drawn(page);
    assert.equal(await page.locator("#cumulative table").count(), 0);
    const pdf = await page.pdf();
    assert.ok(pdf.length > 20_000);
  });
});

test("published runs stand beside what the page says of them, outliers too", async () => {
  await opened(async (page) => {
    const [head, ...rows] = await table(page, "published-runs");
    assert.deepEqual(rows.map(([run]) => run), [
      "Llama 2 7B",
      "Llama 2 70B",
      "Llama 3 8B",
      "Llama 3.1 405B",
      "BLOOM 176B",
      "OLMo 2 7B",
      "TinyLlama 1.1B",
    ]);
    const ratios = rows.map((row) => Number(row[head.indexOf("published / predicted")]));
    assert.ok(ratios.filter((ratio) => ratio >= 0.6 && ratio <= 1.6).length >= 5, `${ratios}`);
    assert.ok(ratios.some((ratio) => ratio > 1.6), "the outlier stays");
    assert.ok(rows.every((row) => row[head.indexOf("source")].length > 5));
  });
});
