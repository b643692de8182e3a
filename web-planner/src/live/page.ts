// The live page: what the daemon does, the tree that grows, the jobs that run, what came in and what there is room for.

import { html, nothing, type TemplateResult } from "lit-html";

import { lineChart } from "../charts/lines.ts";
import { bytes, count, digits, percent, rate, short } from "../format.ts";
import type { Branches, Device, Job, Point, Shards, Status, Steps, Version } from "./api.ts";
import { treeChart } from "./tree.ts";

export interface Seen {
  status: Status | undefined;
  paradigms: readonly Branches[];
  shards: Shards | undefined;
  curve: (job: number) => readonly Point[];
  /** When the daemon was last heard, by this machine's clock; undefined while it is heard. */
  lostSince: Date | undefined;
  width: number;
  /** The time now, by the daemon's clock. */
  now: number;
}

export function page(seen: Seen): TemplateResult {
  const { status, lostSince } = seen;
  return html`<div class=${lostSince ? "live lost" : "live"}>
    <header>
      <div>
        <h1>lrpathd</h1>
        <p class="connection">${status ? html`${status.state}, version ${status.program}` : "not heard yet"}</p>
      </div>
      <nav aria-label="Elsewhere"><a class="button" href="/planner">Plan a budget</a></nav>
    </header>
    <main>
      ${lostSince
        ? html`<p class="problems" role="alert">lrpathd is not heard: trying again. ${status ? html`What stands here is of ${lostSince.toLocaleTimeString()}.` : nothing}</p>`
        : nothing}
      ${status ? content(status, seen) : nothing}
    </main>
    <footer><p>Read from this machine only. The same as JSON: <a href="/v1/status">/v1/status</a>; for Prometheus: <a href="/metrics">/metrics</a>.</p></footer>
  </div>`;
}

function content(status: Status, seen: Seen): TemplateResult {
  return html`
    <section aria-label="Now">
      <p class="doing">${sentence(status, seen.now)}</p>
      ${status.hindrances.length
        ? html`<ul class="problems">${status.hindrances.map(({ what, why }) => html`<li>${what} waits, and goes on by itself: ${why}</li>`)}</ul>`
        : nothing}
    </section>
    ${status.jobs.map((job) => jobView(job, seen))}
    ${seen.paradigms.map((branches) => treeView(branches, status.paradigms[branches.paradigm]?.steps, seen.width))}
    ${inbox(status, seen.shards)} ${machine(status)}
  `;
}

/** What it does, as a sentence with the time that is left. */
export function sentence({ doing, until }: Status, now: number): string {
  const left = until === null ? "" : `, ${duration(until - now)} left`;
  return `${doing.charAt(0).toUpperCase()}${doing.slice(1)}${left}.`;
}

function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function facts(pairs: readonly (readonly [string, string | undefined])[]): TemplateResult {
  return html`<dl class="facts">${pairs.map(([name, value]) => (value === undefined ? nothing : html`<div><dt>${name}</dt><dd>${value}</dd></div>`))}</dl>`;
}

const some = (value: number | null, show: (value: number) => string) => (value === null ? undefined : show(value));

function jobView(job: Job, { curve, width, now }: Seen): TemplateResult {
  const { from, to, step } = job;
  const title = `Job ${job.job}: ${what(job)}`;
  const id = `job-${job.job}`;
  return html`<figure class="job" id=${id} aria-labelledby="t-${id}">
    <figcaption><h2 id="t-${id}">${title}</h2></figcaption>
    <progress aria-label="Steps done" max=${to - from} value=${Math.max(0, step - from)}></progress>
    ${facts([
      ["step", `${count(step)} of ${count(to)}`],
      ["left", some(job.until, (until) => duration(until - now))],
      ["loss", some(job.loss, (loss) => loss.toFixed(3))],
      ["learning rate", some(job.learning_rate, rate)],
      ["tokens/s", some(job.tokens_per_second, short)],
      ["slot", job.slot],
    ])}
    ${job.warning ? html`<p class="problem">${job.warning}</p>` : nothing}
    ${curves(curve(job.job), job, width)}
  </figure>`;
}

function what({ segment, version, path }: Job): string {
  if (segment === "main") return version === null ? "the main path ahead" : `the main path for version ${version}`;
  if (segment === "branch") return `the branch of version ${version}`;
  return version === null ? path : `version ${version}, ${path.split(".")[0]}`;
}

function curves(points: readonly Point[], { from, to }: Job, width: number): TemplateResult | typeof nothing {
  if (points.length < 2) return nothing;
  const panel = width >= 700 ? { width: Math.floor((width - 24) / 2), height: 200 } : { width, height: 180 };
  const x = points.map(({ step }) => step);
  const losses = points.map(({ loss }) => loss);
  const rates = points.map(({ learning_rate }) => learning_rate);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const margin = (high - low) * 0.05 || 0.1;
  const steps = { label: "steps", low: Math.min(from, x[0] ?? from), high: to, show: short };
  const last = points.at(-1);
  return html`<div class="pair">
    ${lineChart({
      ...panel,
      x: steps,
      y: { label: "training loss, nats a token", low: low - margin, high: high + margin, show: digits },
      lines: [{ name: "", look: "loss", pieces: [{ x, y: losses }] }],
      description: `Training loss, from ${losses[0]?.toFixed(3)} to ${last?.loss.toFixed(3)}.`,
    })}
    ${lineChart({
      ...panel,
      x: steps,
      y: { label: "learning rate", low: 0, high: Math.max(...rates) * 1.02, show: rate },
      lines: [{ name: "", look: "main", pieces: [{ x, y: rates }] }],
      description: `Learning rate, now ${rate(last?.learning_rate ?? 0)}.`,
    })}
  </div>`;
}

const TITLES: Readonly<Record<string, string>> = {
  "path-switching": "Version tree",
  "from-scratch": "Versions from scratch",
  continual: "Versions by going on",
};

function treeView(branches: Branches, steps: Steps | undefined, width: number): TemplateResult {
  const { paradigm, versions, generations, main } = branches;
  const id = `tree-${paradigm}`;
  return html`<figure id=${id} aria-labelledby="t-${id}">
    <figcaption><h2 id="t-${id}">${TITLES[paradigm] ?? paradigm}</h2></figcaption>
    ${steps
      ? facts([
          ["steps executed", count(steps.executed)],
          ["repeated", count(steps.repeated)],
          ["ahead", main ? count(steps.ahead) : undefined],
          ["cost against from scratch", some(steps.ratio, percent)],
        ])
      : nothing}
    ${main?.failed ? html`<p class="problem">The main path has failed: ${main.failed}</p>` : nothing}
    ${versions.length || main?.reached
      ? html`<div class="drawing">${treeChart(branches, width)}</div>`
      : html`<p>No increment is closed yet.</p>`}
    ${generations.map(({ number, step, shard }) => html`<p>Generation ${number} began at step ${count(step)}, when ${shard} was withdrawn.</p>`)}
    ${versions.length ? versionTable(id, versions) : nothing}
  </figure>`;
}

function versionTable(id: string, versions: readonly Version[]): TemplateResult {
  const newest = [...versions].reverse();
  return html`<div class="scroll" tabindex="0" role="region" aria-labelledby="t-${id}"><table>
    <thead><tr>${["version", "state", "steps", "branch point", "end", "held-out loss", "folder"].map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${newest.map(
      (version) => html`<tr>
        <th scope="row">${version.name}</th>
        <td>${version.state}${version.failed ? html`: ${version.failed}` : nothing}${version.saw_withdrawn.length ? html`; it saw ${version.saw_withdrawn.join(", ")}, withdrawn` : nothing}</td>
        <td class="number">${count(version.steps)}</td>
        <td class="number">${count(version.branch_point)}</td>
        <td class="number">${count(version.end)}</td>
        <td class="number">${version.evaluations.find(({ increment }) => increment === version.number)?.loss.toFixed(3) ?? "–"}</td>
        <td>${version.release ? html`${version.release.folder}${version.release.latest ? " (latest)" : nothing}` : "–"}</td>
      </tr>`,
    )}</tbody>
  </table></div>`;
}

function inbox({ shards, waiting_cut, refused_markers, blocked }: Status, listed: Shards | undefined): TemplateResult {
  const newest = [...(listed?.accepted ?? [])].reverse();
  const rejected = [...(listed?.rejected ?? [])].reverse();
  return html`<figure id="inbox" aria-labelledby="t-inbox">
    <figcaption><h2 id="t-inbox">Shards</h2></figcaption>
    ${facts([
      ["accepted", count(shards.accepted)],
      ["waiting", count(shards.waiting)],
      ["rejected", count(shards.rejected)],
      ["withdrawn", shards.withdrawn ? count(shards.withdrawn) : undefined],
    ])}
    ${waiting_cut
      ? html`<p>${waiting_cut.name ? html`The cut ${waiting_cut.name}` : "A cut"} waits for ${waiting_cut.waits_for.length ? waiting_cut.waits_for.slice(0, 8).join(", ") : "its turn"}.</p>`
      : nothing}
    ${blocked.count
      ? html`<ul class="problems">${blocked.first.map(({ name, why }) => html`<li>${name} cannot be taken: ${why}</li>`)}
          ${blocked.count > blocked.first.length ? html`<li>and ${count(blocked.count - blocked.first.length)} more</li>` : nothing}</ul>`
      : nothing}
    ${refused_markers.map(({ file, reason }) => html`<p class="problem">${file} was refused: ${reason}</p>`)}
    <div class="pair">
      ${list("Newest", newest, ({ name, bytes: size, tokens }) => [name, bytes(size), tokens ? `${short(tokens.stream)} tokens` : "–"])}
      ${list("Waiting", listed?.waiting ?? [], ({ name, bytes: size, why }) => [name, bytes(size), why])}
      ${list("Rejected", rejected, ({ name, reason }) => [name, reason])}
    </div>
  </figure>`;
}

function list<T>(title: string, items: readonly T[], cells: (item: T) => readonly string[]): TemplateResult | typeof nothing {
  if (!items.length) return nothing;
  return html`<table><caption>${title}</caption><tbody>${items.map((item) => {
    const [name, ...rest] = cells(item);
    return html`<tr><th scope="row">${name}</th>${rest.map((cell) => html`<td>${cell}</td>`)}</tr>`;
  })}</tbody></table>`;
}

function machine({ disk, slots, devices }: Status): TemplateResult {
  return html`<figure id="machine" aria-labelledby="t-machine">
    <figcaption><h2 id="t-machine">Disk and devices</h2></figcaption>
    ${facts([
      ["free", some(disk.free, bytes)],
      ["checkpoints", bytes(disk.checkpoints)],
      ["releases", bytes(disk.releases)],
    ])}
    <div class="pair">
    <table><thead><tr><th scope="col">slot</th><th scope="col">devices</th><th scope="col">job</th></tr></thead>
      <tbody>${slots.map(({ name, devices, job, missing }) => html`<tr><th scope="row">${name}</th><td>${devices.join(", ")}</td><td>${job ?? missing ?? "free"}</td></tr>`)}</tbody></table>
    ${devices.length ? deviceTable(devices) : nothing}
    </div>
  </figure>`;
}

function deviceTable(devices: readonly Device[]): TemplateResult {
  const of = (used: number | null, all: number | null) => (used === null || all === null ? "–" : `${bytes(used)} of ${bytes(all)}`);
  return html`<table><thead><tr>${["GPU", "name"].map((name) => html`<th scope="col">${name}</th>`)}${["memory in use", "busy"].map((name) => html`<th scope="col" class="number">${name}</th>`)}</tr></thead>
    <tbody>${devices.map(
      ({ index, name, memory, memory_used, utilisation }) => html`<tr>
        <th scope="row">${index}</th><td>${name}</td><td class="number">${of(memory_used, memory)}</td><td class="number">${some(utilisation, percent) ?? "–"}</td>
      </tr>`,
    )}</tbody></table>`;
}
