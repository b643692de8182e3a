declare module "wasm" {
  export function wasm(): Promise<ArrayBuffer>;
}
declare module "planner.wasm.gz" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
declare module "*.css" {
  const text: string;
  export default text;
}
