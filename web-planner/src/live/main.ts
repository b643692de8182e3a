// Wires the live page: what is heard becomes one picture in the next frame.

import { render } from "lit-html";

import type { Branches, Curve, Shards, Status, Tree } from "./api.ts";
import { Curves } from "./curves.ts";
import { page, sentence } from "./page.ts";
import { ask, listen } from "./wire.ts";

const WIDEST = 1288;
const NARROWEST = 240;
/** Files of each kind that are listed. */
const LISTED = 8;
/** Between two questions for the tree: a flood of files changes the journal without end. */
const PAUSE_MS = 500;
/** Readers of the screen are told what the daemon does once that stays. */
const SPOKEN_AFTER_MS = 3000;

function start(): void {
  const root = document.getElementById("page");
  const spoken = document.getElementById("status");
  if (!root || !spoken) throw new Error("the page has no place for its content");
  let status: Status | undefined;
  let paradigms: readonly Branches[] = [];
  let shards: Shards | undefined;
  let lostSince: Date | undefined;
  let heardAt = new Date();
  let width = WIDEST;
  let isPending = false;
  let shownPosition = -1;
  let isAsking = false;

  const draw = () => {
    isPending = false;
    const now = status ? status.at + (Date.now() - heardAt.getTime()) : 0;
    render(page({ status, paradigms, shards, curve: (job) => curves.of(job), lostSince, width, now }), root);
  };
  const soon = () => {
    if (isPending) return;
    isPending = true;
    requestAnimationFrame(draw);
  };
  const curves = new Curves((job) => ask<Curve>(`/v1/jobs/${job}/curve`), soon);

  /** What is not in the status is asked for when the journal has gone on. */
  const refresh = async () => {
    if (isAsking || !status || status.position === shownPosition) return;
    isAsking = true;
    const wanted = status.position;
    const [tree, listed] = await Promise.all([ask<Tree>("/v1/tree"), ask<Shards>(`/v1/shards?last=${LISTED}`)]);
    if (tree) paradigms = tree.paradigms;
    shards = listed ?? shards;
    if (tree && listed) shownPosition = wanted;
    soon();
    setTimeout(() => {
      isAsking = false;
      void refresh();
    }, PAUSE_MS);
  };
  let doing = "";
  let saying: ReturnType<typeof setTimeout> | undefined;
  listen({
    status(heard) {
      status = heard;
      heardAt = new Date();
      curves.take(heard.jobs);
      void refresh();
      // Steps and times change without end; of these, nobody is told.
      const words = sentence({ ...heard, until: null }, 0).replace(/\d+/g, "");
      if (words !== doing) {
        doing = words;
        clearTimeout(saying);
        saying = setTimeout(() => (spoken.textContent = sentence({ ...heard, until: null }, 0)), SPOKEN_AFTER_MS);
      }
      soon();
    },
    connected(isConnected) {
      if (isConnected === (lostSince === undefined)) return;
      lostSince = isConnected ? undefined : heardAt;
      shownPosition = -1;
      curves.again();
      soon();
    },
  });
  root.replaceChildren();
  draw();
  new ResizeObserver(([entry]) => {
    const found = Math.min(WIDEST, Math.floor((entry?.contentRect.width ?? WIDEST) - 32));
    if (found === width || found < NARROWEST) return;
    width = found;
    soon();
  }).observe(root);
}

start();
