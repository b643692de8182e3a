// What is loaded into the page: its own JSON, or that of `lrpathctl export`.

import { patched, type Found } from "./address.ts";
import { FORMAT, VERSION } from "./export.ts";
import { DEFAULTS, type Draft } from "./fields.ts";
import { OTHER_DEVICE } from "./assumptions.ts";
import { TOO_LARGE } from "./files.ts";

/** Why nothing was loaded, as a sentence. */
export class WrongImport extends Error {}

/** What `lrpathctl export` writes, as far as the page reads it. */
interface Project {
  model: unknown;
  batch: { sequence_length: number; sequences_per_step: number };
  schedule: {
    peak: number;
    min: number;
    warmup_steps: number;
    rewarmup_steps: number;
    decay: string;
    hold: number | null;
    alpha: number;
  };
  paradigms: string[];
  every_tokens: number | null;
  branch_points: number;
  slots: number;
  increments: { name: string; tokens: number; released: boolean }[];
  spent: { time: number };
  tokens_per_second: number | null;
}

const MS_OF_AN_HOUR = 3_600_000;
/** Versions that a project is planned to make next. */
const NEXT = 4;

export function load(text: string | undefined, draft: Draft): Found {
  if (text === undefined) throw new WrongImport(TOO_LARGE);
  if (!text.trim()) throw new WrongImport("there is nothing in it");
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    throw new WrongImport("it is no JSON");
  }
  if (typeof found !== "object" || found === null || !("format" in found)) {
    throw new WrongImport("it is neither what this page exports nor what lrpathctl export writes: it names no format");
  }
  const { format, version } = found as { format: unknown; version?: unknown };
  if (format === FORMAT) {
    if (version !== VERSION) throw new WrongImport(`it is of version ${version} of this page's format, and version ${VERSION} is known`);
    const { set } = found as { set?: unknown };
    if (typeof set !== "object" || set === null) throw new WrongImport("what was set is missing in it");
    return patched(DEFAULTS, set as Record<string, unknown>, "The file");
  }
  if (format === "lrpath-export") {
    if (version !== 1) throw new WrongImport(`it is of version ${version} of lrpathctl's export, and version 1 is known`);
    return { draft: ofProject(found as unknown as Project, draft), notice: undefined };
  }
  throw new WrongImport(`its format, “${String(format).slice(0, 40)}”, is not known here`);
}

/**
 * A running project: its increments come first, and as many as may follow are like the last one. What it was seen to do
 * counts more than a table; of its device nothing else is known.
 */
function ofProject(project: Project, draft: Draft): Draft {
  const { model, batch, schedule, increments, tokens_per_second, every_tokens } = project;
  const number = (value: unknown, what: string): string => {
    if (typeof value !== "number" || !Number.isFinite(value)) throw new WrongImport(`${what} is missing in it, or no number`);
    return String(value);
  };
  if (typeof model !== "object" || model === null) throw new WrongImport("the model's configuration is missing in it");
  const isOne = (increment: unknown) => typeof increment === "object" && increment !== null;
  if (!Array.isArray(increments) || !increments.every(isOne)) throw new WrongImport("its increments are missing");
  if (typeof schedule !== "object" || schedule === null) throw new WrongImport("its schedule is missing");
  const made = increments.map(
    ({ name, tokens }, place) => `${String(name).replace(/[\n;,]/g, " ")} ${number(tokens, `the number of tokens of increment ${place + 1}`)}`,
  );
  const usual = increments.at(-1)?.tokens ?? every_tokens;
  const next = usual === null ? [] : Array.from({ length: NEXT }, (_, place) => `next-${place + 1} ${number(usual, "every_tokens")}`);
  return {
    ...draft,
    model: "custom",
    config: JSON.stringify(model, null, 2),
    ...(usual === null ? {} : { sizes: "list", list: [...made, ...next].join("\n") }),
    made: String(increments.filter(({ released }) => released).length),
    sequence_length: number(batch?.sequence_length, "the length of a sequence"),
    sequences_per_step: number(batch?.sequences_per_step, "the batch"),
    alpha: number(schedule.alpha, "alpha"),
    peak: number(schedule.peak, "the maximal learning rate"),
    min: number(schedule.min, "the minimal learning rate"),
    warmup_steps: number(schedule.warmup_steps, "the warm-up"),
    rewarmup_steps: number(schedule.rewarmup_steps, "the re-warm-up"),
    decay: String(schedule.decay),
    hold: schedule.hold === null ? "" : number(schedule.hold, "hold"),
    paradigm: String(project.paradigms?.[0]),
    branch_points: number(project.branch_points, "the number of branch points that are kept"),
    spent: (Number(number(project.spent?.time, "the time that was spent")) / MS_OF_AN_HOUR).toPrecision(6),
    slots: number(project.slots, "the number of slots"),
    device: OTHER_DEVICE,
    devices: "1",
    ...(tokens_per_second === null ? {} : { speed: "measured", tokens_per_second: number(tokens_per_second, "its speed") }),
  };
}
