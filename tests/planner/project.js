// A project of lrpathd's own: a state, a daemon that works on it, and text that it is given.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createServer } from "node:net";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");
const BIN = process.env.LRPATH_BIN ?? join(root, "target/release");
const TINY = { model_type: "llama", vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 64 };

export const lrpathctl = (...words) => execFileSync(join(BIN, "lrpathctl"), words, { encoding: "utf8" });

/** Waits until a question is answered with yes. */
export async function come(question) {
  for (let tries = 0; tries < 600; tries++) {
    try {
      if (await question()) return;
    } catch {
      // What is asked is not there yet.
    }
    await new Promise((later) => setTimeout(later, 100));
  }
  assert.fail(`it never came: ${question}`);
}

export class Project {
  #folder = mkdtempSync(join(tmpdir(), "lrpath-page-"));
  #daemon;
  #environment = process.env;

  /** A state that is made, and nothing that runs. */
  constructor(control = "") {
    writeFileSync(join(this.#folder, "config.json"), JSON.stringify(TINY));
    writeFileSync(
      join(this.#folder, "lrpathd.toml"),
      `[model]\nconfig = "config.json"\n[tokenizer]\nvocabulary = 300\ntrain_bytes = 2000\n[data]\nsequence_length = 16\nsequences_per_step = 2\nsettle_seconds = 0.2\nscan_seconds = 0.2\nheld_out_share = 0.0\n[schedule]\nwarmup_steps = 2\nalpha = 0.5\n[checkpoints]\nevery = 50\n[control]\n${control}\n`,
    );
    lrpathctl("init", "--state", this.state, "--config", join(this.#folder, "lrpathd.toml"));
  }

  /** As it is, with a port for the live page. */
  static async live() {
    const probe = createServer();
    await new Promise((listening) => probe.listen(0, "127.0.0.1", listening));
    const address = `127.0.0.1:${probe.address().port}`;
    await new Promise((closed) => probe.close(closed));
    const project = new Project(`listen = "${address}"\npage = "${process.env.LRPATH_PAGE ?? join(root, "web-planner/dist")}"`);
    project.address = `http://${address}/`;
    return project;
  }

  /** From its next start on the daemon finds a driver with two GPUs, which are not there. */
  pretend_gpus() {
    const library = join(this.#folder, "libnvidia-ml.so.1");
    execFileSync("cc", ["-shared", "-fPIC", "-o", library, join(root, "tests/pretended_driver/nvml.c")]);
    this.#environment = { ...process.env, LD_LIBRARY_PATH: this.#folder };
  }

  get folder() {
    return this.#folder;
  }

  get state() {
    return join(this.#folder, "state");
  }

  async start() {
    this.#daemon = spawn(join(BIN, "lrpathd"), ["--state", this.state], { stdio: "ignore", env: this.#environment });
    await come(() => this.ask("status"));
  }

  ask(...words) {
    return JSON.parse(lrpathctl(...words, "--state", this.state, "--json"));
  }

  /** Drops so many sentences, and waits until they are taken. */
  async drop(name, sentences) {
    const { accepted } = this.ask("status").shards;
    const text = Array.from({ length: sentences }, (_, at) => `In ${name} it was said ${at * 7 + name.length} times. `).join("");
    this.put(name, text);
    await come(() => this.ask("status").shards.accepted === accepted + 1);
  }

  put(name, text) {
    const hidden = join(this.state, "data", `.${name}`.slice(0, 60));
    writeFileSync(hidden, text);
    renameSync(hidden, join(this.state, "data", name));
  }

  cut(name) {
    return this.ask("cut", name);
  }

  async released(count) {
    await come(() => this.ask("versions").filter(({ release }) => release).length === count);
  }

  /** Ends the daemon, by a signal that it may answer in order or not. */
  async stop(signal = "SIGTERM") {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (!daemon || daemon.exitCode !== null) return;
    const ended = new Promise((end) => daemon.once("exit", end));
    daemon.kill(signal);
    await ended;
  }

  async remove() {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
