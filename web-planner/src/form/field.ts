// One field: its label, its input, and what is wrong with it.

import { html, nothing, type TemplateResult } from "lit-html";
import { live } from "lit-html/directives/live.js";

import { FIELDS, type Field, type FieldName, type NumberField } from "../fields.ts";
import { parse, written } from "../format.ts";
import type { State } from "../state.ts";

export interface FormView {
  state: State;
  placeholders: Partial<Record<FieldName, string>>;
  /** Names of choices that are known only at run time. */
  options: Partial<Record<FieldName, Readonly<Record<string, string>>>>;
}

export function field(name: FieldName, view: FormView): TemplateResult {
  const found: Field = FIELDS[name];
  const input = inputOf(name, found, view);
  const problem = view.state.problems.get(name);
  const unit = found.kind === "number" && found.unit ? html`<span class="unit">${found.unit}</span>` : nothing;
  if (found.kind === "flag") {
    return html`<div class="field flag"><label>${input} ${found.label}</label>${notes(name, found.help, problem)}</div>`;
  }
  return html`<div class="field">
    <label for="f-${name}">${found.label} ${unit}</label>
    <div class="inputs">${found.kind === "number" && found.slider ? slider(name, found, view) : nothing}${input}</div>
    ${notes(name, found.help, problem)}
  </div>`;
}

/** Three numbers in a row: the likely one, and the ends of its range. */
export function bandField(name: "mfu" | "tokens_per_second" | "price" | "power" | "pue" | "carbon", view: FormView): TemplateResult {
  const low: FieldName = `${name}_low`;
  const high: FieldName = `${name}_high`;
  const found: NumberField = FIELDS[name];
  const problems = [name, low, high].map((name) => view.state.problems.get(name)).filter((problem) => problem !== undefined);
  return html`<div class="field">
    <label for="f-${name}">${found.label} ${found.unit ? html`<span class="unit">${found.unit}</span>` : nothing}</label>
    ${found.slider ? html`<div class="inputs">${slider(name, found, view)}</div>` : nothing}
    <div class="inputs band">
      ${inputOf(name, found, view)}
      <span class="from">from</span>${inputOf(low, FIELDS[low], view)}<span class="from">to</span>${inputOf(high, FIELDS[high], view)}
    </div>
    ${notes(name, found.help, problems.join("; ") || undefined)}
  </div>`;
}

function notes(name: FieldName, help: string | undefined, problem: string | undefined) {
  return html`${help ? html`<p class="help" id="h-${name}">${help}</p>` : nothing}
    <p class="problem" id="p-${name}" ?hidden=${!problem}>${problem}</p>`;
}

function inputOf(name: FieldName, found: Field, view: FormView): TemplateResult {
  const { draft, problems } = view.state;
  const wrong = problems.has(name);
  const value = draft[name];
  const said = `${wrong ? `p-${name.replace(/_(low|high)$/, "")} ` : ""}${"help" in found && found.help ? `h-${name}` : ""}`.trim() || nothing;
  switch (found.kind) {
    case "number":
      return html`<input id="f-${name}" name=${name} type="text" inputmode="decimal" autocomplete="off" spellcheck="false" maxlength="40"
        aria-label=${/_(low|high)$/.test(name) ? found.label : nothing} .value=${live(value)}
        placeholder=${view.placeholders[name] ?? ""} aria-invalid=${wrong} aria-describedby=${said} />`;
    case "choice": {
      const options = Object.entries(view.options[name] ?? found.options);
      return html`<select id="f-${name}" name=${name} aria-invalid=${wrong} aria-describedby=${said}>
        ${options.map(([key, words]) => html`<option value=${key} .selected=${live(key === value)}>${words}</option>`)}
      </select>`;
    }
    case "flag":
      return html`<input id="f-${name}" name=${name} type="checkbox" .checked=${live(value === "yes")} aria-describedby=${said} />`;
    case "text":
      return html`<textarea id="f-${name}" name=${name} rows=${found.rows} spellcheck="false" autocomplete="off" maxlength="100000"
        .value=${live(value)} aria-invalid=${wrong} aria-describedby=${said}></textarea>`;
  }
}

function slider(name: FieldName, found: NumberField, { state, placeholders }: FormView): TemplateResult {
  const { min, max, step, logarithmic } = found.slider ?? { min: 0, max: 1, step: 0.01 };
  const number = parse(state.draft[name] || placeholders[name] || "") ?? min;
  const place = logarithmic ? Math.log10(Math.max(number, 1)) : number;
  return html`<input type="range" name=${name} min=${min} max=${max} step=${step} .value=${live(String(Math.min(max, Math.max(min, place))))}
    aria-label="${found.label}, slider" aria-valuetext=${state.draft[name] || placeholders[name] || nothing} />`;
}

/** What an input stands for, as the draft has it. */
export function valueOf(input: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement): string {
  if (input instanceof HTMLInputElement && input.type === "checkbox") return input.checked ? "yes" : "no";
  if (input instanceof HTMLInputElement && input.type === "range") {
    const found: Field = FIELDS[input.name as FieldName];
    const isLogarithmic = found.kind === "number" && found.slider?.logarithmic;
    return isLogarithmic ? written(Number((10 ** Number(input.value)).toPrecision(3))) : String(Number(input.value));
  }
  return input.value;
}
