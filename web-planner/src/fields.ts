// Everything that a person can set, as a table: the form, the address, the checks and the types follow from it.

export interface NumberField {
  kind: "number";
  label: string;
  unit?: string;
  help?: string;
  /** As text; empty where the device or the law says what is taken. */
  default: string;
  min: number;
  max: number;
  /** Above `min`, not at it. */
  above?: boolean;
  whole?: boolean;
  optional?: boolean;
  /** A slider beside the number. Its ends are not the bounds. */
  slider?: { min: number; max: number; step: number; logarithmic?: boolean };
}
export interface ChoiceField {
  kind: "choice";
  label: string;
  help?: string;
  default: string;
  /** Names for people; empty where they are known only once the core is there. */
  options: Readonly<Record<string, string>>;
}
export interface FlagField {
  kind: "flag";
  label: string;
  help?: string;
  default: "yes" | "no";
}
export interface TextField {
  kind: "text";
  label: string;
  help?: string;
  default: string;
  rows: number;
}
export type Field = NumberField | ChoiceField | FlagField | TextField;

type Numbers<F extends Omit<NumberField, "kind">> = { kind: "number" } & F;
const number = <const F extends Omit<NumberField, "kind">>(field: F): Numbers<F> => ({ kind: "number", ...field });
const choice = <const O extends Readonly<Record<string, string>>>(
  label: string,
  chosen: string,
  options: O,
  help?: string,
) => ({ kind: "choice" as const, label, default: chosen, options, help });
const flag = (label: string, chosen: "yes" | "no", help?: string): FlagField => ({
  kind: "flag",
  label,
  default: chosen,
  help,
});

/** A number with the range that it may lie in: three fields, of which the ends may stay empty. */
function band<const N extends string>(name: N, field: Omit<NumberField, "kind">) {
  const end = (label: string) => number({ ...field, label, default: "", optional: true as const, slider: undefined, help: undefined });
  return {
    [name]: number({ ...field, optional: true as const }),
    [`${name}_low`]: end(`${field.label}, lowest`),
    [`${name}_high`]: end(`${field.label}, highest`),
  } as Record<N | `${N}_low` | `${N}_high`, NumberField & { optional: true }>;
}
const parameter = (label: string, max = 1e12) =>
  number({ label, default: "", optional: true as const, min: 0, max });

export const MOST_VERSIONS = 2000;
const MOST_TOKENS = 1e15;

export const FIELDS = {
  model: choice("Model", "paper-1.2b", {}),
  config: {
    kind: "text",
    label: "config.json",
    help: "As Hugging Face transformers has it. Only what sizes depend on is looked at.",
    default: "",
    rows: 8,
  } as TextField,

  sizes: choice("Increments", "equal", { equal: "all of one size", list: "a list" }),
  versions: number({
    label: "Versions",
    default: "4",
    whole: true,
    min: 1,
    max: MOST_VERSIONS,
    slider: { min: 1, max: 50, step: 1 },
  }),
  tokens: number({
    label: "New tokens for each",
    help: "10.5B, 800M or 1e9 are understood.",
    default: "10.48576B",
    whole: true,
    min: 1,
    max: MOST_TOKENS,
    slider: { min: 6, max: 13, step: 0.05, logarithmic: true },
  }),
  list: {
    kind: "text",
    label: "Tokens of each increment",
    help: "One a line, or with commas between: 10.5B, 12B; a name may stand before each.",
    default: "",
    rows: 6,
  } as TextField,
  made: number({
    label: "Versions that are there already",
    help: "The first of the increments: their cost is behind you.",
    default: "0",
    whole: true,
    min: 0,
    max: MOST_VERSIONS,
  }),
  spent: number({
    label: "What was spent so far",
    unit: "device-hours",
    help: "Measured, with all that was trained twice.",
    default: "",
    optional: true,
    min: 0,
    max: 1e12,
  }),

  alpha: number({
    label: "Alpha",
    help: "Share of an increment that its branch covers.",
    default: "0.6",
    min: 0,
    above: true,
    max: 1,
    slider: { min: 0.01, max: 1, step: 0.01 },
  }),
  decay: choice("Shape of the decay", "cosine", {
    cosine: "cosine",
    linear: "linear",
    "one-minus-sqrt": "1 − √x",
    exponential: "exponential",
    knee: "knee",
    "multi-step": "multi-step",
  }),
  peak: number({ label: "Maximal learning rate", default: "3e-4", min: 0, above: true, max: 10 }),
  min: number({ label: "Minimal learning rate", default: "3e-5", min: 0, max: 10 }),
  warmup_steps: number({
    label: "Warm-up",
    unit: "steps",
    default: "2000",
    whole: true,
    min: 0,
    max: 1e9,
    slider: { min: 0, max: 10000, step: 100 },
  }),
  rewarmup_steps: number({
    label: "Warm-up of later continual versions",
    unit: "steps",
    default: "0",
    whole: true,
    min: 0,
    max: 1e9,
  }),
  hold: number({
    label: "Share of a whole schedule that stays at the maximum",
    help: "Of from-scratch runs; the shape's own where it is empty.",
    default: "",
    optional: true,
    min: 0,
    max: 1,
  }),

  sequence_length: number({ label: "Sequence", unit: "tokens", default: "2048", whole: true, min: 1, max: 1e8 }),
  sequences_per_step: number({ label: "Batch", unit: "sequences a step", default: "512", whole: true, min: 1, max: 1e8 }),

  device: choice("Device", "h100-sxm", {}),
  flops: number({ label: "FLOP/s of dense bf16", default: "", optional: true, min: 0, above: true, max: 1e20 }),
  slots: number({
    label: "Jobs side by side",
    unit: "slots",
    default: "1",
    whole: true,
    min: 1,
    max: 64,
    slider: { min: 1, max: 8, step: 1 },
  }),
  devices: number({
    label: "Devices of one job",
    default: "1",
    whole: true,
    min: 1,
    max: 1e6,
    slider: { min: 1, max: 64, step: 1 },
  }),
  speed: choice("Speed", "share", { share: "by the share of the device's rate (MFU)", measured: "by a measurement" }),
  ...band("mfu", {
    label: "Model FLOPs utilisation",
    default: "",
    min: 0,
    above: true,
    max: 1,
    slider: { min: 0.05, max: 0.8, step: 0.01 },
  }),
  convention: choice("FLOPs of attention", "full", {
    full: "of the whole sequence",
    causal: "of what the mask lets be seen (half)",
  }),
  ...band("tokens_per_second", {
    label: "Tokens a second of one device",
    default: "",
    min: 0,
    above: true,
    max: 1e12,
  }),
  ...band("price", { label: "Price of a device", unit: "$ an hour", default: "", min: 0, max: 1e6 }),
  ...band("power", { label: "Power of a device", unit: "W", default: "", min: 0, max: 1e6 }),
  ...band("pue", { label: "What the site takes for each watt (PUE)", default: "", min: 1, max: 10 }),
  ...band("carbon", { label: "Carbon", unit: "kg CO₂ a kWh", default: "", min: 0, max: 10 }),
  branch_points: number({
    label: "Branch points that are kept",
    help: "Checkpoints of the main path where the last branches left it.",
    default: "2",
    whole: true,
    min: 0,
    max: MOST_VERSIONS,
  }),

  days_between: number({
    label: "New data every",
    unit: "days",
    default: "7",
    min: 0,
    max: 36500,
    slider: { min: 0, max: 90, step: 1 },
  }),
  ahead: flag("The main path trains ahead", "yes", "As soon as data are there and a slot is free, before a version waits for it."),

  micro_batch: number({ label: "Micro-batch", unit: "sequences", default: "1", whole: true, min: 1, max: 1e6 }),
  recompute: choice("Recomputed in the backward pass", "selective", {
    none: "nothing",
    selective: "attention's scores",
    full: "each layer",
  }),
  zero: choice("Shared out among replicas", "none", {
    none: "nothing",
    optimizer: "optimizer state (ZeRO-1)",
    gradients: "and gradients (ZeRO-2)",
    weights: "and weights (ZeRO-3, FSDP)",
  }),
  tensor: number({ label: "Tensor parallel", default: "1", whole: true, min: 1, max: 1e4 }),
  pipeline: number({ label: "Pipeline parallel", default: "1", whole: true, min: 1, max: 1e4 }),
  expert: number({ label: "Expert parallel", help: "Replicas that share the experts of each layer.", default: "1", whole: true, min: 1, max: 1e4 }),
  sequence_parallel: flag("Sequence parallel", "no"),
  gradient_bytes: choice("Gradients are summed in", "4", { "2": "bf16", "4": "f32" }),
  memory: number({ label: "Memory of a device", unit: "GB", default: "", optional: true, min: 0, above: true, max: 1e6 }),

  law: choice("Loss law", "none", {
    none: "none",
    tissue: "Tissue et al. 2024",
    "multi-power": "multi-power, Luo et al. 2025",
  }),
  law_L0: parameter("L₀"),
  law_A: parameter("A"),
  law_a: parameter("a (power of the sum of rates)"),
  law_B: parameter("B"),
  law_C: parameter("C"),
  law_lambda: parameter("λ", 0.99999999),
  law_beta: parameter("β"),
  law_gamma: parameter("γ"),

  measure: choice("Costs are drawn in", "money", {
    money: "dollars",
    device_hours: "device-hours",
    energy: "kWh",
    carbon: "kg CO₂",
    flops: "FLOPs",
    tokens: "tokens",
    steps: "steps",
  }),
  paradigm: choice("Paradigm", "path-switching", {
    "path-switching": "path switching",
    "from-scratch": "from scratch",
    continual: "continual",
  }),
} as const satisfies Record<string, Field>;

export type FieldName = keyof typeof FIELDS;
export const NAMES = Object.keys(FIELDS) as FieldName[];

type ValueOf<F> = F extends { kind: "number" }
  ? F extends { optional: true }
    ? number | undefined
    : number
  : F extends { kind: "choice"; options: infer O }
    ? keyof O extends never
      ? string
      : keyof O
    : F extends FlagField
      ? boolean
      : string;
/** What was set, read and within its bounds. */
export type Scenario = { readonly [K in FieldName]: ValueOf<(typeof FIELDS)[K]> };
/** What stands in the form, as text. */
export type Draft = Readonly<Record<FieldName, string>>;
export type Problems = ReadonlyMap<FieldName, string>;

export const DEFAULTS = Object.fromEntries(NAMES.map((name) => [name, FIELDS[name].default])) as Draft;
