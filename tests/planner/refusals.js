// What cannot be computed is refused in a sentence that begins with the field's name.

import assert from "node:assert/strict";

const LLAMA = {
  model_type: "llama",
  vocab_size: 32000,
  hidden_size: 2048,
  intermediate_size: 5504,
  num_hidden_layers: 22,
  num_attention_heads: 16,
};
const SETTINGS = { peak: 3e-4, min: 3e-5, warmup_steps: 0, rewarmup_steps: 0, decay: "cosine" };
const PACE = { slots: 1, hours_per_step: 1, hours_between: 0, ahead: true };
const ALONE = { devices: 1, tensor: 1, pipeline: 1, expert: 1, zero: "none", sequence_parallel: false };
const LOAD = { micro_batch: 1, sequence_length: 2048, recompute: "selective", gradient_bytes: 2 };
const exactly = (value) => ({ low: value, likely: value, high: value });
const RATES = { price: exactly(1), power: exactly(400), pue: exactly(1.2), carbon: exactly(0.4) };

/** Asks for what cannot be, and for what can be right beside it. */
export function refusals(planner) {
  const model = (changed) => planner.countModel({ ...LLAMA, ...changed }, 2048);
  const batch = { sequence_length: 2048, sequences_per_step: 512 };
  const costs = (mfu) =>
    planner.costs(LLAMA, batch, { share: { flops: 312e12, mfu: exactly(mfu), convention: "full" } }, RATES, [10]);
  assert.ok(model({ architectures: ["LlamaForCausalLM"], rope_scaling: null, torch_dtype: "bfloat16" }).parameters > 1e9);
  assert.ok(costs(0.45).costs[0].money.likely > 0);
  assert.equal(planner.devices().length, 19);
  assert.ok(JSON.parse(planner.presets()).every(({ config }) => planner.countModel(config, 2048).parameters > 0));
  const presets = Object.fromEntries(JSON.parse(planner.presets()).map(({ id, config }) => [id, config]));
  const ratios = planner.publishedRuns().map((run, place) => planner.judgeRun(place, presets[run.model]).ratio);
  assert.ok(ratios.filter((ratio) => ratio >= 0.6 && ratio <= 1.6).length >= 5, `${ratios}`);
  assert.ok(planner.lossWarning().length > 100 && planner.mfuSource().length > 100 && planner.lawError() > 0);

  for (const [asked, begins] of [
    [() => model({ hidden_size: "wide" }), "hidden_size: a whole number was expected"],
    [() => model({ num_hidden_layers: 2.5 }), "num_hidden_layers: a whole number was expected"],
    [() => model({ vocab_size: -1 }), "vocab_size: a whole number was expected"],
    [() => model({ vocab_size: 1e300 }), "vocab_size: a whole number was expected"],
    [() => model({ model_type: 3 }), "model_type: a word was expected"],
    [() => model({ tie_word_embeddings: "yes" }), "tie_word_embeddings: true or false was expected"],
    [() => model({ mlp_only_layers: [1, "two"] }), "mlp_only_layers: a list of whole numbers was expected"],
    [() => model({ model_type: "gpt2" }), "model_type: the family `gpt2` is not known"],
    [() => model({ hidden_size: undefined }), "hidden_size: it is missing"],
    [() => planner.countModel("{}", 2048), "config.json: it is no object"],
    [() => planner.countModel(null, 2048), "config.json: it is no object"],
    [() => planner.plan([], 0.6), "increments: "],
    [() => planner.plan([10, -1], 0.6), "increments: "],
    [() => planner.plan([10], 0), "alpha: 0 "],
    [() => planner.plan([10], NaN), "alpha: NaN "],
    [() => planner.checkWarmup([10], 0.6, { ...SETTINGS, warmup_steps: 5 }), "warmup_steps: path-switching: the warm-up of 5 steps"],
    [() => planner.checkWarmup([10], 0.6, { ...SETTINGS, peak: 0 }), "peak: 0 "],
    [() => planner.checkWarmup([10], 0.6, { ...SETTINGS, decay: "square" }), "settings: "],
    [() => costs(0), "mfu: 0 "],
    [() => costs(NaN), "mfu: NaN"],
    [() => planner.timeline("path-switching", [10], 0.6, { ...PACE, slots: 0 }), "slots: 0 "],
    [() => planner.timeline("sideways", [10], 0.6, PACE), "paradigm: "],
    [() => planner.footprint(LLAMA, { ...ALONE, devices: 3, tensor: 2 }, LOAD), "devices: 3 "],
    [() => planner.footprint(LLAMA, ALONE, { ...LOAD, micro_batch: 0 }), "micro_batch: 0 "],
    [() => planner.judgeRun(99, LLAMA), "place: there is no published run 99"],
    [() => planner.alphaPoints([10], SETTINGS, undefined, [0.5, 2]), "alpha: 2 "],
    [() => planner.alphaPoints([10], SETTINGS, { tissue: { L0: 1 } }, [0.5]), "law: "],
  ]) {
    assert.throws(asked, (error) => {
      assert.ok(error instanceof Error && error.message.startsWith(begins), `${error.message}\nshould begin with ${begins}`);
      return true;
    });
  }
}
