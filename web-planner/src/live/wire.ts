// The wire to the daemon: its status as it changes, and answers to questions. A wire that breaks is mended by itself.

import type { Status } from "./api.ts";

/** A daemon that lives says something at least every ten seconds. */
const SILENT_AFTER_MS = 25_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

export interface Heard {
  status: (status: Status) => void;
  /** Whether the daemon is heard now. */
  connected: (isConnected: boolean) => void;
}

/** Listens for as long as the page lives. */
export function listen({ status, connected }: Heard): void {
  let pause = FIRST_PAUSE_MS;
  const begin = () => {
    const source = new EventSource("/v1/live");
    let silence: ReturnType<typeof setTimeout> | undefined;
    const lost = () => {
      clearTimeout(silence);
      source.close();
      connected(false);
      setTimeout(begin, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    };
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(lost, SILENT_AFTER_MS);
      pause = FIRST_PAUSE_MS;
      connected(true);
    };
    source.addEventListener("status", ({ data }: MessageEvent<string>) => {
      alive();
      status(JSON.parse(data) as Status);
    });
    source.addEventListener("beat", alive);
    // A browser tries again by itself, but not after every kind of failure.
    source.addEventListener("error", lost);
    silence = setTimeout(lost, SILENT_AFTER_MS);
  };
  begin();
}

/** An answer, or nothing where there is none now: the next change asks again. */
export async function ask<T>(address: string): Promise<T | undefined> {
  try {
    const answer = await fetch(address);
    return answer.ok ? ((await answer.json()) as T) : undefined;
  } catch {
    return undefined;
  }
}
