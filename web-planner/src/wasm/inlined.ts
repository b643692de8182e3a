// A page that is opened from a disk may fetch nothing, so it carries the module: packed, since text of a third more bytes
// would carry it otherwise.
import packed from "planner.wasm.gz";

/** The module, from within the page. */
export async function wasm(): Promise<ArrayBuffer> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
