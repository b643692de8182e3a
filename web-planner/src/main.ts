// Wires the page: a change becomes one picture in the next frame, however many changes there were.

import { html, render } from "lit-html";

import { load } from "./core.ts";
import { page, open, summary } from "./page.ts";
import { Prediction } from "./prediction.ts";
import { Store } from "./state.ts";

/** Readers of the screen are told what came out once it stays. */
const SPOKEN_AFTER_MS = 600;
const WIDEST = 860;
/** Longer tables are not printed. */
const MOST_PRINTED = 200;

async function start(): Promise<void> {
  const root = document.getElementById("page");
  const status = document.getElementById("status");
  if (!root || !status) throw new Error("the page has no place for its content");
  try {
    const world = await load();
    run(root, status, world);
  } catch (error) {
    render(html`<p class="problems" role="alert">The planner could not start: ${String(error)}. It needs a browser with WebAssembly, from 2023 or later.</p>`, root);
    throw error;
  }
}

function run(root: HTMLElement, status: HTMLElement, world: Awaited<ReturnType<typeof load>>): void {
  const open_ = new Map<string, boolean>();
  let width = WIDEST;
  let isPrinting = false;
  let isPending = false;
  let isOld = true;
  let spoken: ReturnType<typeof setTimeout> | undefined;

  const draw = () => {
    isPending = false;
    if (isOld) store.compute();
    isOld = false;
    render(page({ store, world, prediction, shown }), root);
    clearTimeout(spoken);
    spoken = setTimeout(() => {
      const { problems, picture } = store.state;
      status.textContent = problems.size ? [...problems.values()].join(". ") : picture ? summary(picture).join(" ") : "";
    }, SPOKEN_AFTER_MS);
  };
  const soon = (isNew: boolean) => {
    isOld ||= isNew;
    if (isPending) return;
    isPending = true;
    requestAnimationFrame(draw);
  };
  const store = new Store(world, () => soon(true));
  const prediction = new Prediction(() => soon(false));
  const shown = {
    get width() {
      return width;
    },
    isOpen: (id: string) => open_.get(id) ?? (isPrinting && (store.state.picture?.sizes.length ?? 0) <= MOST_PRINTED),
    toggled: (id: string, isOpen: boolean) => {
      if (isPrinting || open_.get(id) === isOpen) return;
      open_.set(id, isOpen);
      soon(false);
    },
  };

  store.compute();
  isOld = false;
  draw();
  const place = root.querySelector(".results");
  if (place) {
    new ResizeObserver(([entry]) => {
      const found = Math.min(WIDEST, Math.floor(entry?.contentRect.width ?? WIDEST));
      if (found === width || found < 100) return;
      width = found;
      soon(false);
    }).observe(place);
  }
  addEventListener("beforeprint", () => {
    isPrinting = true;
    draw();
  });
  addEventListener("afterprint", () => {
    isPrinting = false;
    soon(false);
  });
  addEventListener("keydown", (event) => {
    const isText = event.target instanceof HTMLTextAreaElement || (event.target instanceof HTMLInputElement && event.target.type === "text");
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || isText) return;
    event.preventDefault();
    if (event.shiftKey) store.redo();
    else store.undo();
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (file) open(store, await file.text());
  });
}

void start();
