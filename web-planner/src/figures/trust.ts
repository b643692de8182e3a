// How good the page's numbers are: published runs beside what it would have said of them, and where its numbers are from.

import type { PublishedRun } from "planner";

import { judgeRun, mfuSource, publishedRuns, type World } from "../core.ts";
import { count, digits, dollars, percent, short } from "../format.ts";
import { remembered } from "../remembered.ts";
import type { Figure } from "./figure.ts";

export function published(world: World): Figure {
  // They are asked for with each picture, and hang on nothing that can be set.
  const runs = remembered("published runs", [], () => publishedRuns().map((run, place) => judged(run, place, world)));
  const close = runs.filter(({ judged }) => judged.ratio >= 0.6 && judged.ratio <= 1.6).length;
  return {
    id: "published-runs",
    title: "How good is this",
    caption: () =>
      `${close} of ${runs.length} published runs took between 0.6 and 1.6 times the device-hours that this page says with its default share of the device's rate and nothing tuned. Those shares are ${mfuSource()}.`,
    table: () => ({
      columns: [
        { name: "run" },
        { name: "device" },
        { name: "tokens", show: short },
        { name: "published device-hours", show: count },
        { name: "predicted", show: digits },
        { name: "published / predicted", show: digits },
        { name: "MFU that this means", show: percent },
        { name: "remark" },
        { name: "source" },
      ],
      rows: runs.map(({ run, name, device, judged }) => [
        name,
        device,
        run.tokens,
        run.device_hours,
        judged.predicted,
        judged.ratio,
        judged.mfu,
        run.remark,
        run.source,
      ]),
    }),
  };
}

export function devices(world: World): Figure {
  return {
    id: "devices",
    title: "Devices, and where their numbers are from",
    caption: () =>
      "Rates are of dense bf16 products with f32 sums; data sheets often print twice as much, which only sparse matrices reach. Prices are of a day, and differ by a factor of ten between clouds: put in yours.",
    table: () => ({
      columns: [
        { name: "device" },
        { name: "TFLOP/s", show: digits },
        { name: "best measured", show: percent },
        { name: "default MFU", show: percent },
        { name: "GB", show: digits },
        { name: "W", show: digits },
        { name: "$ an hour", show: dollars },
        { name: "price from" },
        { name: "the rest from" },
      ],
      rows: world.devices.map((device) => [
        device.name,
        device.flops / 1e12,
        device.best_measured,
        device.mfu,
        device.memory_gb,
        device.power,
        device.price,
        device.price_source,
        device.source,
      ]),
    }),
  };
}

function judged(run: PublishedRun, place: number, { presets, devices }: World) {
  const preset = presets.find(({ id }) => id === run.model);
  if (!preset) throw new Error(`there is no preset ${run.model}`);
  const device = devices.find(({ id }) => id === run.device);
  return { run, name: preset.name, device: device?.name ?? run.device, judged: judgeRun(place, preset.config) };
}
