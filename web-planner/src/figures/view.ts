// A figure on the page: its picture, its words, its table, its formulas, and ways to take it away.

import { html, noChange, nothing, type TemplateResult } from "lit-html";

import { download, svgFile } from "../files.ts";
import { csv, shown, type Figure } from "./figure.ts";
import type { Picture } from "../picture.ts";

export interface Shown {
  width: number;
  /** Tables that are open; the others are not made. */
  isOpen: (id: string) => boolean;
  toggled: (id: string, isOpen: boolean) => void;
  /** Whether it is drawn now; what is out of view waits until nothing moves any more. */
  isDrawn: (id: string) => boolean;
  /** Everything is drawn. */
  isWhole: boolean;
}

export function figureView(figure: Figure, picture: Picture, view: Shown, isTable = false): TemplateResult | typeof noChange {
  const { id, title } = figure;
  if (!view.isDrawn(id)) return noChange;
  const formulas = figure.formulas?.(picture) ?? [];
  return html`<figure id=${id} aria-labelledby="t-${id}">
    <figcaption>
      <div class="title"><h2 id="t-${id}">${title}</h2>${takeAway(figure, picture)}</div>
      <p>${figure.caption(picture)}</p>
    </figcaption>
    ${figure.chart ? html`<div class="drawing">${figure.chart(picture, view.width)}</div>` : nothing}
    ${isTable ? html`<div class="whole">${table(figure, picture)}</div>` : folded(`${id}-table`, "Table", view, () => table(figure, picture))}
    ${formulas.length
      ? folded(`${id}-formulas`, "How the numbers come about", view, () => html`<dl class="formulas">${formulas.map(({ name, text }) => html`<dt>${name}</dt><dd>${text}</dd>`)}</dl>`)
      : nothing}
  </figure>`;
}

function takeAway(figure: Figure, picture: Picture): TemplateResult {
  const { id, title } = figure;
  const save = (event: Event) => {
    const drawing = (event.target as Element).closest("figure")?.querySelector("svg");
    if (drawing) download(`lrpath-${id}.svg`, "image/svg+xml", svgFile(drawing, title));
  };
  return html`<span class="take">
    ${figure.chart ? html`<button type="button" aria-label="${title} as SVG" @click=${save}>SVG</button>` : nothing}
    <button type="button" aria-label="${title} as CSV" @click=${() => download(`lrpath-${id}.csv`, "text/csv", csv(figure.table(picture)))}>CSV</button>
  </span>`;
}

function folded(id: string, title: string, view: Shown, content: () => unknown): TemplateResult {
  const isOpen = view.isOpen(id);
  return html`<details ?open=${isOpen} @toggle=${(event: Event) => view.toggled(id, (event.target as HTMLDetailsElement).open)}>
    <summary>${title}</summary>${isOpen ? content() : nothing}
  </details>`;
}

function table(figure: Figure, picture: Picture): TemplateResult {
  const { columns, rows } = figure.table(picture);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${figure.title}, table"><table>
    <thead><tr>${columns.map(({ name }) => html`<th scope="col">${name || html`<span class="unseen">what</span>`}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr>${row.map((cell, place) =>
        place === 0
          ? html`<th scope="row">${shown(columns[place], cell)}</th>`
          : html`<td class=${typeof cell === "number" ? "number" : ""}>${shown(columns[place], cell)}</td>`,
      )}</tr>`,
    )}</tbody>
  </table></div>`;
}
