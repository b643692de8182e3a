/** The module, from beside the page. */
export async function wasm(): Promise<ArrayBuffer> {
  const answer = await fetch(new URL("planner.wasm", document.baseURI));
  if (!answer.ok) throw new Error(`planner.wasm: the server says ${answer.status}`);
  return answer.arrayBuffer();
}
