// The page: what was set on one side, what follows on the other.

import { html, noChange, nothing, type TemplateResult } from "lit-html";

import { placeholders } from "./assumptions.ts";
import { figureView, type Shown } from "./figures/view.ts";
import { lawError, lossWarning, type World } from "./core.ts";
import { download } from "./files.ts";
import { citation, inputs, json, toml } from "./export.ts";
import { alpha } from "./figures/alpha.ts";
import { comparison } from "./figures/comparison.ts";
import { cumulative } from "./figures/cumulative.ts";
import type { Figure } from "./figures/figure.ts";
import { loss } from "./figures/loss.ts";
import { MEASURES, ranged } from "./figures/measure.ts";
import { memory, verdict } from "./figures/memory.ts";
import { rates } from "./figures/rates.ts";
import { latency, timeline } from "./figures/timeline.ts";
import { devices, published } from "./figures/trust.ts";
import { FIELDS, type FieldName } from "./fields.ts";
import { form, opener } from "./form/form.ts";
import { field } from "./form/field.ts";
import { count, digits, hours, percent } from "./format.ts";
import { load, WrongImport } from "./import.ts";
import type { Picture } from "./picture.ts";
import type { Prediction } from "./prediction.ts";
import type { Store } from "./state.ts";

export interface Page {
  store: Store;
  world: World;
  prediction: Prediction;
  shown: Shown;
}

export function page({ store, world, prediction, shown }: Page): TemplateResult {
  const { state } = store;
  const { picture } = state;
  return html`
    <header>
      <div>
        <h1>lrpath planner</h1>
        <p>What each version of a language model will cost: by learning-rate path switching, from scratch, or by going on.</p>
      </div>
      <nav aria-label="This plan">
        <button type="button" ?disabled=${!state.canUndo} @click=${() => store.undo()}>Undo</button>
        <button type="button" ?disabled=${!state.canRedo} @click=${() => store.redo()}>Redo</button>
        ${opener("Open", (text) => open(store, text))}
        <button type="button" @click=${() => store.reset()}>Start over</button>
      </nav>
    </header>
    <main>
      <section class="inputs-side" aria-label="Inputs">${form(store, world)}</section>
      <section class="results" aria-label="Results" aria-busy=${!shown.isWhole}>
        ${problemList(store)}
        ${picture ? results(picture, { store, world, prediction, shown }) : nothing}
      </section>
    </main>
    <footer>
      <p>The arithmetic is that of lrpathd itself, compiled for this page. Nothing that is set here leaves it.</p>
    </footer>`;
}

/** The text of a file or of the clipboard, loaded or refused. */
export function open(store: Store, text: string | undefined): void {
  try {
    const { draft, notice } = load(text, store.state.draft);
    store.replace(draft, notice);
  } catch (wrong) {
    if (!(wrong instanceof WrongImport)) throw wrong;
    store.notify(`Nothing was loaded: ${wrong.message}. What was shown stays.`);
  }
}

function problemList({ state }: Store): TemplateResult {
  const problems = [...state.problems];
  const isShown = problems.length > 0 || state.notice !== undefined;
  return html`<div class="problems" role="alert" ?hidden=${!isShown}>
    ${state.notice ? html`<p>${state.notice}</p>` : nothing}
    ${problems.map(([name, sentence]) => html`<p><a href="#f-${name}" @click=${focused}>${FIELDS[name].label}</a>: ${sentence}.</p>`)}
    ${problems.length && state.picture ? html`<p>Below stands the last plan that could be drawn.</p>` : nothing}
  </div>`;
}

/** A link to a field is no new address. */
function focused(event: Event): void {
  event.preventDefault();
  const id = (event.target as HTMLAnchorElement).hash.slice(1);
  const input = document.getElementById(id);
  input?.closest("details")?.setAttribute("open", "");
  input?.focus();
}

/** What matters, in sentences. */
export function summary(picture: Picture): string[] {
  const { "path-switching": ours, "from-scratch": scratch } = picture.ways;
  const { known, sizes, scenario } = picture;
  const cost = known.money ? ranged(MEASURES.money.of(ours.cost), MEASURES.money.show) : `${ranged(ours.cost.device_hours, MEASURES.device_hours.show)} device-hours`;
  const lines = [
    `${count(sizes.length)} versions by path switching take ${count(ours.steps)} steps: ${percent(ours.ratio)} of the ${count(scratch.steps)} from scratch, and ${cost}.`,
  ];
  const last = (way: typeof ours) => hours(way.timeline.versions.at(-1)?.latency ?? 0);
  lines.push(`The last version is there ${last(ours)} after its data; from scratch it would be ${last(scratch)}.`);
  if (scenario.made > 0) {
    const { of, show } = known.money ? MEASURES.money : MEASURES.device_hours;
    const before = ours.cumulative[scenario.made - 1];
    const behind = before ? of(before).likely : 0;
    const unit = known.money ? "" : " device-hours";
    lines.push(
      `Of that, ${show(behind)}${unit} are behind you with ${count(scenario.made)} versions, and ${show(of(ours.cost).likely - behind)}${unit} are to come with ${count(sizes.length - scenario.made)}.`,
    );
  }
  if (scenario.spent !== undefined) {
    const planned = ours.cumulative[scenario.made - 1]?.device_hours.likely ?? 0;
    lines.push(`${digits(scenario.spent)} device-hours were spent so far, as measured; for these versions the plan says ${digits(planned)}.`);
  }
  lines.push(verdict(picture).sentence);
  return lines;
}

function results(picture: Picture, { store, world, prediction, shown }: Page): TemplateResult {
  const { draft } = store.state;
  const stale = store.state.problems.size > 0;
  const view = (figure: Figure, isTable = false) => figureView(figure, picture, shown, isTable);
  return html`<div class="pictures ${stale ? "stale" : ""}">
    <div class="summary">${summary(picture).map((line) => html`<p>${line}</p>`)}</div>
    ${view(comparison, true)} ${view(rates)} ${view(cumulative)} ${view(alpha)} ${view(timeline)} ${view(latency)} ${view(memory)}
    ${lossView(picture, prediction, view)}
    ${shown.isWhole ? exports(picture, store) : noChange}
    ${view(inputs(draft, placeholders(draft, world)))}
    ${view(published(world), true)} ${view(devices(world))}
  </div>`;
}

function lossView(picture: Picture, prediction: Prediction, view: (figure: Figure) => unknown) {
  const found = prediction.of(picture);
  if (!picture.law) return nothing;
  if (!found?.isWhole) return html`<p class="pending">The predicted losses are being worked out.</p>`;
  if (found.refusal) return html`<p class="problems">There is no predicted loss: ${found.refusal}.</p>`;
  if (!found.points.length) return html`<p class="problems">There is no predicted loss: the warm-up is longer than every first branch point.</p>`;
  return view(loss(found, lawError(), lossWarning()));
}

function exports(picture: Picture, store: Store): TemplateResult {
  const { draft } = store.state;
  const view = { state: store.state, placeholders: {}, options: {} };
  const name: FieldName = "paradigm";
  return html`<section class="exports" aria-labelledby="t-exports" @input=${(event: Event) => {
    const input = event.target as HTMLSelectElement;
    if (input.name === name) store.set(name, input.value);
  }}>
    <h2 id="t-exports">Take it with you</h2>
    <p>This plan is in the page's address. As files:</p>
    ${field(name, view)}
    <p class="take">
      <button type="button" @click=${() => download("lrpathd.toml", "application/toml", toml(picture))}>lrpathd.toml</button>
      <button type="button" @click=${() => download("config.json", "application/json", `${JSON.stringify(picture.config, null, 2)}\n`)}>config.json</button>
      <button type="button" @click=${() => download("lrpath-plan.json", "application/json", json(draft, picture))}>Plan as JSON</button>
    </p>
    ${picture.config.model_type === "llama" ? nothing : html`<p class="help">lrpath-train trains LLaMA models; another one needs a trainer of your own.</p>`}
    <label for="citation">To be quoted</label>
    <textarea id="citation" readonly rows="5" .value=${citation(draft, picture)}></textarea>
    <p class="help">What lrpathctl export writes of a running project is opened above: what it has cost, and what its next versions will.</p>
  </section>`;
}
