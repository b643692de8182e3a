// What cannot be is said beside its field, and the last good picture stays.

import assert from "node:assert/strict";
import test from "node:test";

import { drawn, openFile, opened, problems, set, summary } from "./harness.js";

const CONFIG = { model_type: "llama", vocab_size: 32000, hidden_size: 2048, intermediate_size: 5504, num_hidden_layers: 22, num_attention_heads: 16 };
const config = (changed) => ({ model: "custom", config: JSON.stringify({ ...CONFIG, ...changed }) });

const CASES = {
  "no JSON": [{ model: "custom", config: "{" }, "config", /it is no JSON/],
  "a config.json of nonsense": [{ model: "custom", config: '{"hello": "world"}' }, "config", /model_type/],
  "a list for a config.json": [{ model: "custom", config: "[1, 2]" }, "config", /model_type|no object/],
  "an empty config.json": [{ model: "custom", config: "" }, "config", /is missing/],
  "an unknown family": [config({ model_type: "mamba" }), "config", /family `mamba` is not known/],
  "a negative width": [config({ hidden_size: -5 }), "config", /hidden_size: a whole number was expected/],
  "a huge vocabulary": [config({ vocab_size: 1e300 }), "config", /vocab_size: a whole number was expected/],
  "no heads": [config({ num_attention_heads: 0 }), "config", /num_attention_heads/],
  "a word for layers": [config({ num_hidden_layers: "many" }), "config", /num_hidden_layers: a whole number/],
  "alpha 0": [{ alpha: "0" }, "alpha", /more than 0/],
  "alpha 1.5": [{ alpha: "1.5" }, "alpha", /at most 1/],
  "alpha as a word": [{ alpha: "most" }, "alpha", /is no number/],
  "a negative number of versions": [{ versions: "-3" }, "versions", /too small/],
  "half a version": [{ versions: "2.5" }, "versions", /no whole number/],
  "a million versions": [{ versions: "1e6" }, "versions", /too large/],
  "no tokens": [{ tokens: "" }, "tokens", /a number is missing/],
  "tokens without end": [{ tokens: "1e999" }, "tokens", /is no number|too large/],
  "fewer tokens than a step": [{ tokens: "1000", warmup_steps: "0" }, "tokens", /has no whole step: one takes 1,048,576 tokens/],
  "an empty list": [{ sizes: "list", list: " \n " }, "list", /the list is empty/],
  "a word in the list": [{ sizes: "list", list: "1B, many" }, "list", /increment 2: “many” is no number of tokens/],
  "a negative increment": [{ sizes: "list", list: "20B\n-1B" }, "list", /increment 2/],
  "groups of digits in the list": [{ sizes: "list", list: "10,000,000" }, "list", /increment 2: 0 is no number of tokens/],
  "a warm-up behind the first branch point": [{ warmup_steps: "5000" }, "warmup_steps", /5000 steps|5,000 steps/],
  "a warm-up where alpha is 1": [{ alpha: "1" }, "warmup_steps", /alpha/],
  "min above peak": [{ min: "1" }, "min", /between 0 and peak/],
  "an exponential decay to 0": [{ decay: "exponential", min: "0" }, "min", /never reaches 0/],
  "a share of the rate above 1": [{ mfu: "1.2" }, "mfu", /at most 1/],
  "a range that ends before its middle": [{ price: "3", price_high: "2" }, "price_high", /below 3/],
  "a measured speed of nothing": [{ speed: "measured" }, "tokens_per_second", /a number is missing/],
  "a site that takes less than its devices": [{ pue: "0.5" }, "pue", /at least 1/],
  "devices that cannot be shared out": [{ devices: "6", tensor: "4" }, "devices", /cannot be shared out/],
  "more stages than layers": [{ devices: "64", pipeline: "64" }, "pipeline", /cannot share the 22 layers/],
  "experts where there are none": [{ devices: "4", expert: "4" }, "expert", /must divide the experts of a layer, 1,/],
  "no slots": [{ slots: "0" }, "slots", /at least 1/],
  "more made than there are": [{ made: "9" }, "made", /only 4 versions/],
  "a device of which nothing is known": [{ device: "other" }, "flops", /a number is missing/],
  "a batch beyond counting": [{ sequence_length: "1e8", sequences_per_step: "1e8" }, "sequences_per_step", /too large/],
  "a law that cannot be": [{ law: "tissue", law_lambda: "1" }, "law_lambda", /too large/],
};

for (const [name, [changes, field, sentence]] of Object.entries(CASES)) {
  test(name, async () => {
    await opened(async (page) => {
      const before = await summary(page);
      for (const [name, value] of Object.entries(changes)) await set(page, name, value);
      assert.equal(await page.locator(`#f-${field}`).getAttribute("aria-invalid"), "true", "the field is marked");
      assert.match(await problems(page), sentence);
      const beside = await page.locator(`#p-${field.replace(/_(low|high)$/, "")}`).innerText();
      assert.match(beside, sentence);
      assert.match(await problems(page), /the last plan that could be drawn/);
      const after = await summary(page);
      // Settings on the way there may have been drawn; what stands is a plan, and no error of a number.
      assert.doesNotMatch(after, /NaN|undefined|Infinity/);
      if (Object.keys(changes).length === 1) assert.equal(after, before);
      // The link leads to the field.
      await page.locator(".problems a").first().click();
      assert.equal(await page.evaluate(() => document.activeElement.id), `f-${field}`);
      await page.getByRole("button", { name: "Start over" }).click();
      await drawn(page);
      assert.equal(await page.locator(".problems[role=alert]").isVisible(), false);
      assert.equal(await summary(page), before);
    });
  });
}

test("a foreign file is refused with its reason, and nothing changes", async () => {
  await opened(async (page) => {
    await set(page, "alpha", "0.5");
    const before = await page.locator(".results .pictures").innerText();
    for (const [text, reason] of [
      ["not JSON", /it is no JSON/],
      ["", /nothing in it/],
      ["[]", /names no format/],
      ['{"name": "somebody else\'s"}', /names no format/],
      ['{"format": "tensorboard"}', /its format, “tensorboard”, is not known here/],
      ['{"format": "lrpath-planner", "version": 7, "set": {}}', /of version 7/],
      ['{"format": "lrpath-planner", "version": 1}', /what was set is missing/],
      ['{"format": "lrpath-export", "version": 2}', /of version 2/],
      ['{"format": "lrpath-export", "version": 1}', /is missing in it/],
      ['{"format": "lrpath-export", "version": 1, "model": {}, "increments": 3}', /increments are missing/],
      ['{"format": "lrpath-export", "version": 1, "model": {}, "schedule": {}, "increments": [null]}', /increments are missing/],
      ["9".repeat(9_000_000), /more than 8 MB/],
    ]) {
      await openFile(page, text);
      assert.match(await problems(page), reason);
      assert.equal(await page.locator(".results .pictures").innerText(), before, text.slice(0, 60));
    }
  });
});

test("what a foreign file names is text and never markup", async () => {
  await opened(async (page) => {
    const list = '<img src=x onerror="window.wasRun=1"> 20B\n<script>1</script> 30B';
    await openFile(page, JSON.stringify({ format: "lrpath-planner", version: 1, set: { sizes: "list", list, warmup_steps: "10" } }));
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
    await drawn(page);
    assert.equal(await page.evaluate(() => window.wasRun), undefined);
    assert.equal(await page.locator(".results img, .results script").count(), 0);
    assert.match(await page.locator("#cumulative table").innerText(), /<img src=x/);
  });
});
