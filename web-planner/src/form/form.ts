// The form: what belongs together, in the order in which a plan is made.

import { html, nothing, type TemplateResult } from "lit-html";

import { OTHER_DEVICE, placeholders } from "../assumptions.ts";
import type { World } from "../core.ts";
import { FIELDS, NAMES, type FieldName } from "../fields.ts";
import { textOf, TOO_LARGE } from "../files.ts";
import { bytes, count } from "../format.ts";
import type { Store } from "../state.ts";
import { increments, LAW_SOURCES, pastedLaw, PUBLISHED_LAWS, read, Refusal } from "../scenario.ts";
import { bandField, field, valueOf, type FormView } from "./field.ts";

export function form(store: Store, world: World): TemplateResult {
  const { state } = store;
  const { draft, picture } = state;
  const view: FormView = {
    state,
    placeholders: placeholders(draft, world),
    options: {
      model: {
        ...Object.fromEntries(world.presets.map(({ id, name }) => [id, name])),
        custom: "a config.json of your own",
      },
      device: { ...Object.fromEntries(world.devices.map(({ id, name }) => [id, name])), [OTHER_DEVICE]: "another device" },
    },
  };
  const fields = (...names: FieldName[]) => names.map((name) => field(name, view));
  return html`<form class="form" aria-label="The plan" autocomplete="off" @submit=${(event: Event) => event.preventDefault()}
    @input=${(event: Event) => take(event, store)}>
    ${group(
      "Model",
      true,
      fields("model"),
      draft.model === "custom" ? [field("config", view), opener("Open a config.json", (text) => (text === undefined ? store.refuse(new Refusal("config", TOO_LARGE)) : store.set("config", text)))] : nothing,
      picture && !state.problems.size
        ? html`<p class="help">${count(picture.model.parameters)} parameters${
            picture.model.activeParameters === picture.model.parameters
              ? nothing
              : html`, ${count(picture.model.activeParameters)} of them for each token`
          }; a checkpoint takes ${bytes(picture.ways["path-switching"].disk.checkpoint)}.</p>`
        : nothing,
      fields("sequence_length", "sequences_per_step"),
    )}
    ${group(
      "Increments",
      true,
      fields("sizes"),
      draft.sizes === "equal" ? fields("versions", "tokens") : fields("list"),
      picture && !state.problems.size
        ? html`<p class="help">${count(picture.sizes.length)} versions, ${count(picture.sizes[0] ?? 0)} steps the first;
            a step trains ${count(picture.tokensPerStep)} tokens.</p>`
        : nothing,
      fields("days_between", "made"),
      draft.made === "0" && !draft.spent ? nothing : fields("spent"),
    )}
    ${group("Path switching", true, fields("alpha", "decay", "warmup_steps", "peak", "min", "rewarmup_steps", "hold"))}
    ${group(
      "Hardware and what it costs",
      true,
      fields("device", "devices", "slots", "ahead", "speed"),
      draft.speed === "measured" ? bandField("tokens_per_second", view) : [bandField("mfu", view), ...fields("convention", "flops")],
      bandField("price", view),
      html`<p class="help">Price from: ${world.devices.find(({ id }) => id === draft.device)?.price_source ?? "you"}.</p>`,
      bandField("power", view),
      bandField("pue", view),
      bandField("carbon", view),
      fields("branch_points"),
      html`<p class="help">Grey numbers are taken while a field is empty; PUE, carbon and the share of the rate are judgements. A number that you
        give is taken as known, until you give its range.</p>`,
    )}
    ${group(
      "Memory of a device",
      isTouched(draft, ["micro_batch", "recompute", "zero", "tensor", "pipeline", "expert", "sequence_parallel", "gradient_bytes", "memory"]),
      fields("micro_batch", "recompute", "zero", "tensor", "pipeline", "expert", "sequence_parallel", "gradient_bytes", "memory"),
    )}
    ${group("Predicted loss", isTouched(draft, ["law"]), fields("law"), lawFields(view, store))}
    ${group("Drawing", isTouched(draft, ["measure"]), fields("measure"))}
  </form>`;
}

function isTouched(draft: Readonly<Record<FieldName, string>>, names: readonly FieldName[]): boolean {
  return names.some((name) => draft[name] !== FIELDS[name].default);
}

function group(title: string, isOpen: boolean, ...content: unknown[]): TemplateResult {
  return html`<details class="group" ?open=${isOpen}><summary><h2>${title}</h2></summary>${content}</details>`;
}

function lawFields(view: FormView, store: Store) {
  const { law } = view.state.draft;
  const paste = html`<div class="field"><label for="pasted-law">Paste parameters</label>
    <div class="inputs"><input id="pasted-law" type="text" spellcheck="false" placeholder='{"tissue": {"L0": 2.6, …}}'
      @input=${(event: Event) => event.stopPropagation()}
      @change=${(event: Event) => {
        const input = event.target as HTMLInputElement;
        if (!input.value.trim()) return;
        try {
          store.replace({ ...store.state.draft, ...pastedLaw(input.value) });
          input.value = "";
        } catch (refusal) {
          if (!(refusal instanceof Refusal)) throw refusal;
          store.refuse(refusal);
        }
      }} /></div></div>`;
  if (law !== "tissue" && law !== "multi-power") return paste;
  const names = Object.keys(PUBLISHED_LAWS[law]).map((key) => `law_${key}` as FieldName);
  return html`<div class="few">${names.map((name) => field(name, view))}</div>
    <p class="help">Grey numbers are of a published fit to another model (${LAW_SOURCES[law]}). Only parameters that were fitted to your own runs say anything of them.</p>
    ${paste}`;
}

/** A button that opens a file. */
export function opener(label: string, opened: (text: string | undefined) => void): TemplateResult {
  return html`<label class="button">${label}<input type="file" class="unseen" accept="application/json,.json"
    @input=${(event: Event) => event.stopPropagation()}
    @change=${async (event: Event) => {
      const input = event.target as HTMLInputElement;
      const file = input.files?.[0];
      if (file) opened(await textOf(file));
      input.value = "";
    }} /></label>`;
}

function take(event: Event, store: Store): void {
  const input = event.target;
  if (!(input instanceof HTMLInputElement || input instanceof HTMLSelectElement || input instanceof HTMLTextAreaElement)) return;
  const name = input.name as FieldName;
  if (!NAMES.includes(name)) return;
  const before = store.state.draft;
  store.set(name, valueOf(input));
  // A list begins as what was there before it.
  if (name === "sizes" && input.value === "list" && !before.list.trim()) {
    const { scenario } = read(before);
    if (scenario) store.set("list", increments({ ...scenario, sizes: "equal" }, scenario.versions).map(({ tokens }) => tokens).join("\n"));
  }
  if (name === "model" && input.value === "custom" && !before.config.trim()) {
    const preset = store.world.presets.find(({ id }) => id === before.model);
    if (preset) store.set("config", JSON.stringify(preset.config, null, 2));
  }
}
