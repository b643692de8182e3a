// What the daemon answers, as far as the page shows it. Its whole description is at /v1/openapi.json.

export interface Status {
  program: string;
  state: string;
  position: number;
  at: number;
  doing: string;
  until: number | null;
  paused: boolean;
  hindrances: readonly { what: string; why: string; since: number }[];
  paradigms: Readonly<Record<string, { steps: Steps }>>;
  jobs: readonly Job[];
  shards: { waiting: number; accepted: number; rejected: number; withdrawn: number };
  slots: readonly { name: string; devices: readonly string[]; job: number | null; missing: string | null }[];
  devices: readonly Device[];
  disk: { free: number | null; checkpoints: number; releases: number };
  waiting_cut: { name: string | null; waits_for: readonly string[] } | null;
  refused_markers: readonly { file: string; reason: string }[];
  blocked: { count: number; first: readonly { name: string; why: string }[] };
}

/** A GPU; what its driver does not tell is null. */
export interface Device {
  index: number;
  name: string;
  memory: number | null;
  memory_used: number | null;
  utilisation: number | null;
}

export interface Steps {
  executed: number;
  repeated: number;
  ahead: number;
  ratio: number | null;
}

export interface Job {
  job: number;
  path: string;
  segment: string;
  version: number | null;
  slot: string;
  from: number;
  to: number;
  step: number;
  until: number | null;
  loss: number | null;
  learning_rate: number | null;
  tokens_per_second: number | null;
  warning: string | null;
}

export interface Tree {
  position: number;
  paradigms: readonly Branches[];
}

export interface Branches {
  paradigm: string;
  main: { reached: number; running: number | null; failed: string | null; checkpoints: readonly { step: number }[] } | null;
  generations: readonly { number: number; step: number; shard: string }[];
  versions: readonly Version[];
}

export interface Version {
  number: number;
  name: string;
  state: string;
  failed: string | null;
  steps: number;
  end: number;
  alpha: number | null;
  branch_point: number;
  decay_steps: number;
  reached: number | null;
  evaluations: readonly { increment: number; loss: number }[];
  release: { folder: string; latest: boolean; at: number } | null;
  stands: boolean;
  saw_withdrawn: readonly string[];
}

export interface Shards {
  waiting: readonly { name: string; bytes: number; why: string }[];
  accepted: readonly { name: string; bytes: number; tokens: { stream: number } | null; at: number }[];
  rejected: readonly { name: string; reason: string; at: number }[];
}

export interface Curve {
  job: number;
  points: readonly Point[];
}

export interface Point {
  step: number;
  loss: number;
  learning_rate: number;
}
