import { barChart } from "../charts/bars.ts";
import { upTo } from "../charts/scale.ts";
import { count, digits, gib } from "../format.ts";
import type { Picture } from "../picture.ts";
import type { Figure, Formula } from "./figure.ts";

const GB = 1e9;
const GIB = 2 ** 30;
/** What a driver, its libraries and fragments take: judgement. */
const HEADROOM = 0.08;

const PARTS = [
  { name: "weights", key: "weights", look: "part-1" },
  { name: "gradients", key: "gradients", look: "part-2" },
  { name: "optimizer", key: "optimizer", look: "part-3" },
  { name: "gathered weights", key: "gathered", look: "part-4" },
  { name: "activations", key: "activations", look: "part-5" },
  { name: "logits", key: "logits", look: "part-6" },
] as const;

/** Whether it fits, in a sentence. */
export function verdict({ footprint, assumed }: Picture): { fits: boolean | undefined; sentence: string } {
  const needed = gib(footprint.bytes);
  if (assumed.memory === undefined) return { fits: undefined, sentence: `A device must hold ${needed}; how much it has is not known.` };
  const has = assumed.memory * GB;
  const usable = has * (1 - HEADROOM);
  const of = `of ${gib(has)} (${digits(assumed.memory)} GB)`;
  if (footprint.bytes <= usable) return { fits: true, sentence: `It fits: ${needed} ${of} on each device.` };
  const why =
    footprint.bytes <= has
      ? `It hardly fits: ${needed} ${of}, and about ${HEADROOM * 100} % are needed beside it.`
      : `It does not fit: ${needed} ${of} on each device.`;
  return { fits: false, sentence: `${why} Share out more, recompute more, or take a smaller micro-batch.` };
}

export const memory: Figure = {
  id: "memory",
  title: "Memory of a device",
  caption: (picture) => verdict(picture).sentence,
  chart(picture, width) {
    const { footprint, assumed } = picture;
    let at = 0;
    const parts = PARTS.filter(({ key }) => footprint[key] > 0);
    const boxes = parts.map(({ key, look }) => {
      const from = at;
      at += footprint[key] / GIB;
      return { row: 0, from, to: at, look };
    });
    const has = assumed.memory === undefined ? undefined : (assumed.memory * GB) / GIB;
    return barChart({
      width,
      rows: [""],
      x: { label: "GiB", low: 0, high: upTo(Math.max(at, has ?? 0), 6), show: digits },
      boxes,
      looks: parts,
      marks: has === undefined ? [] : [{ at: has, label: "" }],
      description: verdict(picture).sentence,
    });
  },
  table({ footprint }) {
    return {
      columns: [{ name: "part" }, { name: "bytes", show: count }, { name: "GiB", show: digits }],
      rows: [
        ...PARTS.map(({ name, key }) => [name, footprint[key], footprint[key] / GIB]),
        ["all", footprint.bytes, footprint.bytes / GIB],
      ],
    };
  },
  formulas: memoryFormulas,
};

function memoryFormulas({ footprint, scenario, model }: Picture): Formula[] {
  const { tensor: t, expert: e, sequence_length: s, micro_batch: b } = scenario;
  const { replicas: r, parameters, expert_parameters: experts } = footprint;
  const stage = { none: 0, optimizer: 1, gradients: 2, weights: 3 }[scenario.zero];
  /** So many bytes of each parameter, shared out from a stage on. */
  const share = (bytes: number | string, from: number) => {
    if (stage < from || r === 1) return `${bytes} P′`;
    return e === 1 || experts === 0 ? `${bytes} P′ / ${r}` : `${bytes} (P′ − E′) / ${r} + ${bytes} E′ / (${r} / ${e})`;
  };
  return [
    {
      name: "parameters of a device, P′",
      text: `of ${count(model.parameters)}, over tensor ${t} × pipeline ${scenario.pipeline}: ${count(parameters)}; replicas r = ${scenario.devices} / (${t} × ${scenario.pipeline}) = ${r}`,
    },
    ...(experts ? [{ name: "of these in experts, E′", text: `over tensor ${t} × pipeline ${scenario.pipeline} × expert ${e}: ${count(experts)}` }] : []),
    { name: "weights, bf16", text: `${share(2, 3)} = ${gib(footprint.weights)}` },
    { name: "gradients", text: `${share(scenario.gradient_bytes, 2)} = ${gib(footprint.gradients)}` },
    { name: "optimizer: master weights and two moments, f32", text: `${share(12, 1)} = ${gib(footprint.optimizer)}` },
    {
      name: `activations, ${scenario.recompute === "none" ? "nothing" : scenario.recompute === "full" ? "each layer" : "attention's scores"} recomputed`,
      text: `for micro-batch b = ${b}, sequence s = ${count(s)}, width ${count(model.sizes.width)}, ${model.sizes.layers} layers: ${gib(footprint.activations)}`,
    },
    { name: "logits, f32", text: `4 s b V / t = 4 × ${count(s)} × ${b} × ${count(model.sizes.vocabulary)} / ${t} = ${gib(footprint.logits)}` },
  ];
}
