// Chromium, and a server of our own on the loopback.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";

import { chromium } from "playwright-core";

/** Started once; nothing of it asks the network for anything. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
};

/** Serves files by their addresses; `files` gives the path of each, or nothing. */
export async function serve(files) {
  const server = createServer((request, response) => {
    const path = files(new URL(request.url, "http://here").pathname);
    response.writeHead(path ? 200 : 404, { "content-type": path ? TYPES[extname(path)] : "text/plain" });
    response.end(path ? readFileSync(path) : "");
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { address: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** The files of a folder, and nothing else. */
export function folder(path, names) {
  const known = new Map(names.map((name) => [`/${name}`, join(path, name)]));
  return (asked) => known.get(asked === "/" ? "/index.html" : asked);
}
