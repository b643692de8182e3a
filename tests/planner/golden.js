// The golden cases, computed by the planner's WebAssembly, in a page or in Node.
//
// Integers are held against the cases exactly, reals to 1e-12 (of the peak where the least rate is below a hundredth of
// it) and losses to 1e-9. All numbers are given back, for the comparison with what a native program computes.

/** Learning rates and counts of all cases: every number in order, and a sentence for each that is wrong. */
export function golden(planner, vectors) {
  const numbers = [];
  const wrong = [];
  const exactly = (found, expected, place) => {
    if (found !== expected) wrong.push(`${place}: ${found}, not ${expected}`);
  };
  const near = (found, expected, scale, place) => {
    if (!(Math.abs(found - expected) <= scale)) wrong.push(`${place}: ${found}, not ${expected}`);
  };
  plans(planner, vectors.plans, numbers, exactly, near);
  vectors.schedules.forEach((one, index) => schedule(planner, one, `schedule ${index}`, numbers, near));
  vectors.models.forEach((one) => model(planner, one, numbers, exactly));
  vectors.loss_laws.forEach((one, index) => losses(planner, one, `loss law ${index}`, numbers, near));
  return { numbers, wrong };
}

const PARADIGMS = ["path-switching", "from-scratch", "continual"];

function plans(planner, cases, numbers, exactly, near) {
  const report = (increments, alpha) => {
    const found = planner.plan(increments, alpha);
    for (const paradigm of PARADIGMS) {
      const part = found.paradigms[paradigm];
      numbers.push(part.steps, part.ratio);
      for (const segment of part.segments) numbers.push(segment.from, segment.to);
    }
    return found.paradigms;
  };
  cases.plans.forEach((one, index) => {
    const found = report(one.increments, one.alpha);
    for (const paradigm of PARADIGMS) {
      const name = paradigm.replace("-", "_");
      exactly(found[paradigm].steps, one[`${name}_steps`], `plan ${index}, ${paradigm}`);
      const segments = one[`${name}_segments`];
      if (segments) {
        const told = (list) => JSON.stringify(list.map(({ kind, version, from, to }) => [kind, version, from, to]));
        exactly(told(found[paradigm].segments), told(segments), `plan ${index}, ${paradigm}`);
      }
    }
    const ratio = one.path_switching_over_from_scratch;
    near(found["path-switching"].ratio, ratio, 1e-12 * ratio, `plan ${index}`);
  });
  cases.equal_increments.forEach((one, index) => {
    const found = report(new Array(one.count).fill(one.increment), one.alpha);
    exactly(found["from-scratch"].steps, one.from_scratch_steps, `equal increments ${index}`);
    exactly(found["path-switching"].steps, one.path_switching_steps, `equal increments ${index}`);
  });
  cases.warmup.forEach((one, index) => {
    const smallest = planner.smallestFirstIncrement(one.warmup_steps, one.alpha) ?? null;
    exactly(smallest, one.smallest_first_increment, `warm-up ${index}`);
    numbers.push(smallest ?? -1);
  });
}

function settings(one) {
  const found = {
    peak: one.peak,
    min: one.min,
    warmup_steps: one.warmup_steps ?? 0,
    rewarmup_steps: one.rewarmup_steps ?? 0,
    decay: one.shape,
  };
  if (typeof one.hold === "number") found.hold = one.hold;
  return found;
}

function schedule(planner, one, place, numbers, near) {
  const given = settings(one);
  const scale = (expected) => 1e-12 * (given.min >= 0.01 * given.peak ? expected : given.peak);
  const rate = (segment, step, expected) => {
    const [found] = planner.learningRates(segment, given, [step]);
    numbers.push(found);
    near(found, expected, scale(expected), `${place}, step ${step}`);
  };
  if (one.case === "decay" || one.case === "whole") {
    const [kind, to] = one.case === "decay" ? ["branch", one.decay_steps] : ["scratch", one.total_steps];
    for (const [step, expected] of one.points) rate({ kind, version: 1, from: 0, to }, step, expected);
  } else {
    const { segments } = planner.plan(one.increments, one.alpha).paradigms[one.paradigm];
    for (const [segment, step, expected] of one.points) rate(segments[segment], step, expected);
  }
}

function model(planner, one, numbers, exactly) {
  const found = planner.countModel(one.config, one.sequence_length);
  const counts = [
    [found.parameters, one.parameters],
    [found.embeddingParameters, one.embedding_parameters],
    [found.matmulParameters, one.matmul_parameters],
    [found.flopsPerToken, one.flops_per_token],
    [found.flopsPerTokenCausal, one.flops_per_token_causal],
  ];
  for (const [count, expected] of counts) {
    exactly(count, expected, one.name);
    numbers.push(count);
  }
}

function losses(planner, one, place, numbers, near) {
  const steps = one.branch_point + one.decay_steps;
  const way = { paradigm: "path-switching", increments: [steps], alpha: one.decay_steps / steps, version: 1 };
  const laws = [
    [{ tissue: one.tissue }, one.tissue_points],
    [{ "multi-power": one.multi_power }, one.multi_power_points],
  ];
  for (const [law, points] of laws) {
    const found = planner.losses(law, way, settings(one), points.map(([step]) => step));
    points.forEach(([step, expected], index) => {
      near(found[index], expected, 1e-9 * Math.abs(expected), `${place}, step ${step}`);
      numbers.push(found[index]);
    });
  }
}
