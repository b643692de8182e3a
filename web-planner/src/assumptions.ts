// What is taken where a field is empty: the device's own numbers, and judgements that are marked as such.

import type { Band, Device } from "planner";

import type { World } from "./core.ts";
import type { Draft, FieldName, Scenario } from "./fields.ts";
import { digits } from "./format.ts";
import { PUBLISHED_LAWS, Refusal } from "./scenario.ts";

/** A device that the table does not have: nothing is taken for it but judgements. */
export const OTHER_DEVICE = "other";

export interface Assumed {
  /** Its name. */
  device: string;
  flops: number;
  memory: number | undefined;
  mfu: Band;
  tokens_per_second: Band | undefined;
  price: Band | undefined;
  power: Band | undefined;
  pue: Band;
  carbon: Band;
}

/** Judgement: from an efficient site to an old one. */
const PUE: Band = { low: 1.1, likely: 1.2, high: 1.5 };
/** Judgement: from hydropower to coal, with about the world's average between. */
const CARBON: Band = { low: 0.03, likely: 0.45, high: 0.9 };
/** Judgement: how far from its share of the rate a run may end, before it was measured. */
const MFU = { low: 0.75, high: 1.25 };
/** The 90 % range of prices in arXiv 2405.21015. */
const PRICE = { low: 0.5, high: 2 };

/** A number that somebody gave is known, until its ends are given too; else it is what is taken for it. */
function band(scenario: Scenario, name: "mfu" | "tokens_per_second" | "price" | "power" | "pue" | "carbon", taken?: Band) {
  const likely = scenario[name];
  const base = likely === undefined ? taken : { low: likely, likely, high: likely };
  if (!base) return undefined;
  const found = {
    low: scenario[`${name}_low`] ?? base.low,
    likely: base.likely,
    high: scenario[`${name}_high`] ?? base.high,
  };
  if (found.low > found.likely) throw new Refusal(`${name}_low`, `it lies above ${found.likely}, the number in the middle`);
  if (found.high < found.likely) throw new Refusal(`${name}_high`, `it lies below ${found.likely}, the number in the middle`);
  return found;
}

export function assumed(scenario: Scenario, world: World): Assumed {
  const device = world.devices.find(({ id }) => id === scenario.device);
  if (!device && scenario.device !== OTHER_DEVICE) throw new Refusal("device", `there is no device “${scenario.device}”`);
  const flops = scenario.flops ?? device?.flops;
  if (scenario.speed === "share" && flops === undefined) {
    throw new Refusal("flops", "a number is missing: the rate of a device that is not in the table, or choose a measured speed");
  }
  const measured = band(scenario, "tokens_per_second");
  if (scenario.speed === "measured" && !measured) {
    throw new Refusal("tokens_per_second", "a number is missing: what one device was measured to train");
  }
  const taken = takenFor(device);
  return {
    device: device?.name ?? "another device",
    flops: flops ?? 0,
    memory: scenario.memory ?? device?.memory_gb,
    mfu: band(scenario, "mfu", taken.mfu) ?? taken.mfu,
    tokens_per_second: measured,
    price: band(scenario, "price", taken.price),
    power: band(scenario, "power", taken.power),
    pue: band(scenario, "pue", PUE) ?? PUE,
    carbon: band(scenario, "carbon", CARBON) ?? CARBON,
  };
}

function takenFor(device: Device | undefined): { mfu: Band; price: Band | undefined; power: Band | undefined } {
  const { mfu, best_measured, price, prices_seen, power } = device ?? UNKNOWN;
  return {
    mfu: { low: mfu * MFU.low, likely: mfu, high: Math.max(mfu, Math.min(mfu * MFU.high, best_measured ?? 1)) },
    price:
      price === undefined
        ? undefined
        : {
            low: Math.min(price, prices_seen?.[0] ?? price * PRICE.low),
            likely: price,
            high: Math.max(price, prices_seen?.[1] ?? price * PRICE.high),
          },
    power: power === undefined ? undefined : { low: power, likely: power, high: power },
  };
}

/** Judgement: the share that most of the devices in the table are taken to reach. */
const UNKNOWN: Pick<Device, "mfu" | "best_measured" | "price" | "prices_seen" | "power"> = {
  mfu: 0.35,
  best_measured: undefined,
  price: undefined,
  prices_seen: undefined,
  power: undefined,
};

/** What stands, greyed, in a field that is empty. */
export function placeholders(draft: Draft, world: World): Partial<Draft> {
  const device = world.devices.find(({ id }) => id === draft.device);
  const found: Partial<Record<FieldName, string>> = {};
  const show = (name: "mfu" | "price" | "power" | "pue" | "carbon" | "tokens_per_second", band: Band | undefined) => {
    if (draft[name]) {
      found[`${name}_low`] = found[`${name}_high`] = draft[name];
    } else if (band) {
      found[name] = digits(band.likely);
      found[`${name}_low`] = digits(band.low);
      found[`${name}_high`] = digits(band.high);
    } else {
      found[name] = "unknown";
    }
  };
  const taken = takenFor(device);
  show("mfu", taken.mfu);
  show("price", taken.price);
  show("power", taken.power);
  show("pue", PUE);
  show("carbon", CARBON);
  show("tokens_per_second", undefined);
  if (device) found.flops = `${device.flops / 1e12}e12`;
  found.memory = device?.memory_gb === undefined ? "unknown" : String(device.memory_gb);
  if (draft.law === "tissue" || draft.law === "multi-power") {
    for (const [key, value] of Object.entries(PUBLISHED_LAWS[draft.law])) found[`law_${key}` as FieldName] = String(value);
  }
  return found;
}
