// Wires the page: a change becomes one picture in the next frame, however many changes there were.

import { html, render } from "lit-html";

import { load, type World } from "./core.ts";
import { textOf } from "./files.ts";
import { page, open, summary } from "./page.ts";
import { Prediction } from "./prediction.ts";
import { Store } from "./state.ts";

/** Readers of the screen are told what came out once it stays. */
const SPOKEN_AFTER_MS = 600;
/** After so long without a change, what is out of view is drawn too. */
const SETTLED_AFTER_MS = 120;
const WIDEST = 860;
/** Longer tables are not printed. */
const MOST_PRINTED = 200;

async function start(): Promise<void> {
  const root = document.getElementById("page");
  const status = document.getElementById("status");
  if (!root || !status) throw new Error("the page has no place for its content");
  try {
    const world = await load();
    root.replaceChildren();
    run(root, status, world);
  } catch (error) {
    render(html`<p class="problems" role="alert">The planner could not start: ${String(error)}. It needs a browser with WebAssembly, from 2023 or later.</p>`, root);
    throw error;
  }
}

function run(root: HTMLElement, status: HTMLElement, world: World): void {
  const folds = new Map<string, boolean>();
  const inView = new Set<string>();
  let width = WIDEST;
  let isPrinting = false;
  let isPending = false;
  let isOld = true;
  let isWhole = true;
  let settled: ReturnType<typeof setTimeout> | undefined;
  let spoken: ReturnType<typeof setTimeout> | undefined;

  const draw = () => {
    isPending = false;
    if (isOld) store.compute();
    isOld = false;
    render(page({ store, world, prediction, shown }), root);
    for (const figure of root.querySelectorAll("figure")) views.observe(figure);
  };
  const speak = () => {
    const { problems, picture } = store.state;
    status.textContent = problems.size ? [...problems.values()].join(". ") : picture ? summary(picture).join(" ") : "";
  };
  const soon = (isNew: boolean) => {
    isOld ||= isNew;
    if (isNew) {
      // While something moves, only what is in view moves with it.
      isWhole = false;
      clearTimeout(settled);
      settled = setTimeout(() => {
        isWhole = true;
        soon(false);
      }, SETTLED_AFTER_MS);
      clearTimeout(spoken);
      spoken = setTimeout(speak, SPOKEN_AFTER_MS);
    }
    if (isPending) return;
    isPending = true;
    requestAnimationFrame(draw);
  };
  const views = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) inView.add(target.id);
      else inView.delete(target.id);
    }
    if (!isWhole) soon(false);
  });
  const store = new Store(world, soon);
  const prediction = new Prediction(() => soon(false));
  const shown = {
    get width() {
      return width;
    },
    get isWhole() {
      return isWhole;
    },
    isDrawn: (id: string) => isWhole || inView.has(id),
    isOpen: (id: string) => folds.get(id) ?? (isPrinting && (store.state.picture?.sizes.length ?? 0) <= MOST_PRINTED),
    toggled: (id: string, isOpen: boolean) => {
      if (isPrinting || folds.get(id) === isOpen) return;
      folds.set(id, isOpen);
      soon(false);
    },
  };

  draw();
  spoken = setTimeout(speak, SPOKEN_AFTER_MS);
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
    isPrinting = isWhole = true;
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
    if (file) open(store, await textOf(file));
  });
}

void start();
