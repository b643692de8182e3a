// Builds the planner twice, a folder for a web server and one file that is opened from a disk, and the daemon's live page.
//
//   node build.mjs CORE OUT    CORE: planner.js and planner_bg.wasm of planner-wasm

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";

import { gzip } from "@gfx/zopfli";
import binaryen from "binaryen";
import { build } from "esbuild";

const [core, out] = process.argv.slice(2).map((path) => resolve(path));
const here = import.meta.dirname;
const source = (name) => readFileSync(join(here, "src", name), "utf8");

/** What Rust's compiler leaves on the table is a third. */
function smallest(wasm) {
  const module = binaryen.readBinary(wasm);
  // What browsers of 2023 have, and no more.
  const known = ["BulkMemory", "BulkMemoryOpt", "MutableGlobals", "Multivalue", "NontrappingFPToInt", "ReferenceTypes", "SignExt"];
  module.setFeatures(known.reduce((features, name) => features | binaryen.Features[name], binaryen.Features.MVP));
  binaryen.setOptimizeLevel(2);
  binaryen.setShrinkLevel(2);
  // As Rust's own linker lays memory out.
  binaryen.setLowMemoryUnused(true);
  binaryen.setZeroFilledMemory(true);
  module.optimize();
  return Buffer.from(module.emitBinary());
}

const wasm = smallest(readFileSync(join(core, "planner_bg.wasm")));
const packed = await new Promise((done, failed) =>
  gzip(wasm, { numiterations: 15 }, (error, bytes) => (error ? failed(error) : done(Buffer.from(bytes)))),
);

/** A script in one piece. */
async function bundled(entry, plugins) {
  const { outputFiles } = await build({
    entryPoints: [join(here, "src", entry)],
    bundle: true,
    minify: true,
    write: false,
    format: "iife",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    define: { "import.meta.url": "undefined" },
    plugins,
  });
  return outputFiles[0].text.trimEnd();
}

/** The planner's script, with its core beside it or inside. */
const script = (place) =>
  bundled("main.ts", [
    {
      name: "core",
      setup({ onResolve, onLoad }) {
        onResolve({ filter: /^planner$/ }, () => ({ path: join(core, "planner.js") }));
        onResolve({ filter: /^wasm$/ }, () => ({ path: join(here, `src/wasm/${place}.ts`) }));
        onResolve({ filter: /^planner\.wasm\.gz$/ }, ({ path }) => ({ path, namespace: "packed" }));
        onLoad({ filter: /.*/, namespace: "packed" }, () => ({ contents: packed, loader: "binary" }));
        onLoad({ filter: /\.css$/ }, ({ path }) => ({ contents: smaller(readFileSync(path, "utf8")), loader: "text" }));
      },
    },
  ]);

const smaller = (css) => css.replace(/\/\*[^]*?\*\//g, "").replace(/\s*\n\s*/g, "").replace(/\s*([{};])\s*/g, "$1");
const style = smaller(source("page.css")) + smaller(source("chart.css"));
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const filled = (values, page = "index.html") => source(page).replace(/\{(policy|style|script)\}/g, (_, name) => values[name]);

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const served = await script("served");
const inlined = await script("inlined");
const policy = (scripts, styles, more) =>
  `default-src 'none'; script-src ${scripts} 'wasm-unsafe-eval'; style-src ${styles}; img-src data:; base-uri 'none'; form-action 'none'${more}`;

writeFileSync(join(out, "planner.js"), served);
writeFileSync(join(out, "planner.css"), style);
writeFileSync(join(out, "planner.wasm"), wasm);
writeFileSync(
  join(out, "index.html"),
  filled({
    policy: policy("'self'", "'self'", "; connect-src 'self'"),
    style: '<link rel="stylesheet" href="planner.css">',
    script: '<script src="planner.js"></script>',
  }),
);
writeFileSync(
  join(out, "lrpath-planner.html"),
  filled({
    policy: policy(hash(inlined), hash(style), ""),
    style: `<style>${style}</style>`,
    script: `<script>${inlined}</script>`,
  }),
);

writeFileSync(join(out, "live.js"), await bundled("live/main.ts", []));
writeFileSync(join(out, "live.css"), style + smaller(source("live.css")));
writeFileSync(
  join(out, "live.html"),
  filled(
    {
      policy: "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'",
      style: '<link rel="stylesheet" href="/live.css">',
      script: '<script src="/live.js"></script>',
    },
    "live.html",
  ),
);

for (const name of ["index.html", "planner.js", "planner.css", "planner.wasm", "lrpath-planner.html", "live.html", "live.js", "live.css"]) {
  const bytes = readFileSync(join(out, name));
  console.log(`${name}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
}
