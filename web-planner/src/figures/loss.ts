// Predicted loss against alpha. It takes a while, so it is worked out while nothing else is to be done.

import type { Point } from "planner";

import { lineChart } from "../charts/lines.ts";
import { count, digits, percent } from "../format.ts";
import type { Picture } from "../picture.ts";
import type { Predicted } from "../prediction.ts";
import type { Figure } from "./figure.ts";

const inNats = (value: number) => value.toFixed(4);

export function loss(predicted: Predicted, lawError: number, warning: string): Figure {
  const points = predicted.points.filter((point): point is Point & { loss: number } => point.loss !== undefined);
  return {
    id: "loss",
    title: "Predicted loss against alpha",
    caption: ({ scenario }) =>
      `Loss of the last version, with the law's own mean error of ${percent(lawError)} around it. ${warning}${
        scenario.decay === "cosine" ? "" : ` The shape is ${scenario.decay}.`
      }`,
    chart(picture, width) {
      const x = points.map(({ alpha }) => alpha);
      const y = points.map(({ loss }) => loss);
      const flat = [
        { name: "from scratch", look: "from-scratch", loss: predicted.fromScratch },
        { name: "continual", look: "continual", loss: predicted.continual },
      ].filter((line): line is typeof line & { loss: number } => line.loss !== undefined);
      const low = y.map((loss) => loss * (1 - lawError));
      const high = y.map((loss) => loss * (1 + lawError));
      const all = [...low, ...high, ...flat.map(({ loss }) => loss)];
      const [least, most] = [Math.min(...all), Math.max(...all)];
      const room = (most - least) * 0.05;
      return lineChart({
        width,
        height: 280,
        x: { label: "alpha", low: 0, high: 1, show: digits },
        y: { label: "nats a token", low: least - room, high: most + room, show: (value) => value.toFixed(3) },
        lines: [
          { name: "path switching", look: "path-switching", pieces: [{ x, y }], range: { x, low, high } },
          ...flat.map(({ name, look, loss }) => ({ name, look, pieces: [{ x: [0, 1], y: [loss, loss] }] })),
        ],
        marks: [{ at: picture.scenario.alpha, label: `alpha ${digits(picture.scenario.alpha)}` }],
        description: `Predicted loss of the last version against alpha, from ${inNats(y[0] ?? 0)} to ${inNats(y.at(-1) ?? 0)} nats a token.`,
      });
    },
    table() {
      return {
        columns: [
          { name: "alpha", show: digits },
          { name: "steps", show: count },
          { name: "of from scratch", show: percent },
          { name: "loss", show: inNats },
          { name: "lowest", show: inNats },
          { name: "highest", show: inNats },
          { name: "nats for each 1,000 steps more", show: digits },
        ],
        rows: points.map(({ alpha, steps, ratio, loss }, place) => {
          const before = points[place - 1];
          const gain = before && steps > before.steps ? ((loss - before.loss) / (steps - before.steps)) * 1000 : undefined;
          return [alpha, steps, ratio, loss, loss * (1 - lawError), loss * (1 + lawError), gain];
        }),
      };
    },
    formulas: ({ law }: Picture) => {
      if (!law) return [];
      if ("tissue" in law) {
        const { L0, A, a, C, lambda } = law.tissue;
        return [{ name: "loss after step s", text: `L₀ + A S₁^−a − C S₂ = ${L0} + ${A} S₁^−${a} − ${C} S₂, λ = ${lambda}` }];
      }
      const { L0, A, a, B, C, beta, gamma } = law["multi-power"];
      return [
        {
          name: "loss after step s",
          text: `L₀ + A S₁^−a − B Σ (ηₖ₋₁ − ηₖ)(1 − (C ηₖ^−γ Sₖ + 1)^−β), L₀ = ${L0}, A = ${A}, a = ${a}, B = ${B}, C = ${C}, β = ${beta}, γ = ${gamma}`,
        },
      ];
    },
  };
}
